"""Counts in words."""


def counted(number: int, noun: str) -> str:
    """A number and its noun, which is given in the singular: "1 image", "2 images", "1,000 boxes", "0 categories"."""
    if number == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{number:,} {noun[:-1]}ies"
    return f"{number:,} {noun}{'es' if noun.endswith(('s', 'x')) else 's'}"
