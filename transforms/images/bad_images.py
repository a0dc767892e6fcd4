"""The error of an image that cannot be used."""


class BadImageError(ValueError):
    """An image that cannot be used. `code` is a short, stable name of the reason; the message is "code: detail"."""

    def __init__(self, code: str, detail: str):
        super().__init__(f"{code}: {detail}")
        self.code = code
