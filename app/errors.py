"""The errors that the service answers with. The rooms derive their own from these: `TaskNotFound`, `UsernameTaken`, …

An error never repeats a library's message or anything that a client sent: it names the field, not the value.
`http.error_responses` turns errors into responses.
"""

from collections.abc import Mapping


class AppError(Exception):
    """Each class has a `code` of its own, for programs. `error` is OAuth's code (RFC 6749 §5.2, RFC 6750 §3.1)."""

    status_code: int = 500
    detail: str = "Internal Server Error"
    code: str = "internal_error"
    error: str | None = None
    headers: Mapping[str, str] = {}
    reason: str = ""
    """The cause, for operators: the log and the command line show it, and responses do not."""

    def __init_subclass__(cls) -> None:
        if "code" not in vars(cls):
            raise TypeError(f'{cls.__name__} needs a code of its own, such as code = "task_not_found"')

    def __str__(self) -> str:
        return ": ".join(filter(None, [self.detail, self.reason]))


class InvalidInput(AppError):
    """A part of the request is not valid. `loc` says which part, as FastAPI does."""

    status_code = 422
    detail = "A part of the request is not valid"
    code = "invalid_input"
    kind = "value_error"
    loc: tuple[str, ...] = ("body",)

    def __init__(self, loc: tuple[str, ...] | None = None, detail: str | None = None) -> None:
        self.loc = loc or self.loc
        self.detail = detail or self.detail


class NotFound(AppError):
    status_code = 404
    detail = "Not Found"
    code = "not_found"


class Conflict(AppError):
    status_code = 409
    code = "conflict"


class Forbidden(AppError):
    status_code = 403
    code = "forbidden"


class PreconditionFailed(AppError):
    status_code = 412
    detail = "The resource is not in the state that If-Match asks for"
    code = "precondition_failed"


class InvalidHTTPRequest(AppError):
    status_code = 400
    detail = "Invalid HTTP request received."
    code = "invalid_http_request"


class UnknownHost(AppError):
    status_code = 400
    detail = "The Host header is not one of this service's"
    code = "unknown_host"


class BodyTooSlow(AppError):
    status_code = 408
    detail = "The body did not arrive within 10 seconds"
    code = "body_too_slow"
    headers = {"Connection": "close"}  # noqa: RUF012


class BodyTooLarge(AppError):
    status_code = 413
    detail = "The body is over 128 KiB"
    code = "body_too_large"


class URLTooLong(AppError):
    status_code = 414
    detail = "The URL is over 8 KiB"
    code = "url_too_long"


class UnsupportedMediaType(AppError):
    status_code = 415
    detail = "The body must be JSON, with Content-Type: application/json"
    code = "unsupported_media_type"


class UnsupportedContentEncoding(AppError):
    status_code = 415
    detail = "The body must be sent without Content-Encoding"
    code = "unsupported_content_encoding"
    headers = {"Accept-Encoding": "identity"}  # noqa: RUF012


class HeadersTooLarge(AppError):
    status_code = 431
    detail = "The headers are over 16 KiB, or Authorization over 8 KiB"
    code = "headers_too_large"


class InvalidTransferEncoding(AppError):
    status_code = 400
    detail = "Transfer-Encoding must be chunked"
    code = "invalid_transfer_encoding"
    headers = {"Connection": "close"}  # noqa: RUF012


class UnsupportedTransferEncoding(AppError):
    status_code = 501
    detail = "The only Transfer-Encoding is chunked"
    code = "unsupported_transfer_encoding"
    headers = {"Connection": "close"}  # noqa: RUF012


class TooManyRequests(AppError):
    status_code = 429
    detail = "Too many requests"
    code = "too_many_requests"

    def __init__(self, seconds: int) -> None:
        self.headers = {"Retry-After": str(seconds)}


class Unavailable(AppError):
    status_code = 503
    code = "unavailable"
    headers: Mapping[str, str] = {"Retry-After": "1"}


class ShuttingDown(Unavailable):
    detail = "The service is shutting down"
    code = "shutting_down"
    headers = {**Unavailable.headers, "Connection": "close"}  # noqa: RUF012


class BadSettings(ValueError):
    """Settings or key files with which nothing can start. Each of its `args` is a message, without a value."""
