import pytest
import torch

from camboxes.models.execution import precision
from camboxes.models.execution.precision import fastest

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("vendor", "family", "flags", "expected"),
    [
        ("AuthenticAMD", 26, "avx512f avx512_bf16", "bf16"),  # Zen 5
        ("AuthenticAMD", 27, "avx512_bf16", "bf16"),
        ("AuthenticAMD", 26, "avx512f avx512_bf16x", "fp32"),
        ("AuthenticAMD", 25, "avx512f avx512_bf16", "fp32"),
        ("GenuineIntel", 26, "avx512f avx512_bf16", "fp32"),
    ],
)
def test_bfloat16_without_amx_is_for_the_processors_that_are_faster_with_it(
    vendor, family, flags, expected, monkeypatch, tmp_path
):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(precision, "_CPUINFO", tmp_path / "cpuinfo")
    core = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel name\t: X: Y\nflags\t\t: {flags}\n\n"
    (tmp_path / "cpuinfo").write_text(2 * core)
    assert fastest(CPU) == expected


def test_a_processor_that_says_nothing_of_itself_gets_float32(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    for text in (None, "processor\t: 0\nBogoMIPS\t: 50.00\nFeatures\t: fp asimd bf16\n"):  # macOS; Arm
        monkeypatch.setattr(precision, "_CPUINFO", tmp_path / str(text is None))
        if text:
            (tmp_path / "False").write_text(text)
        assert fastest(CPU) == "fp32"


def test_amx_multiplies_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert fastest(CPU) == "bf16"


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp16")])
def test_a_gpu_computes_in_sixteen_bits(monkeypatch, supported, expected):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: supported)
    assert fastest(torch.device("cuda")) == expected
