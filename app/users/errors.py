"""Why an account cannot be made, found, changed or recovered.

AppError
├── RegistrationClosed  403
├── UserNotFound        404
├── UsernameTaken       409
├── LastAdministrator   409
├── UserDisabled        409
└── ResetNotSent        503
"""

from app.errors import Conflict, Forbidden, NotFound, Unavailable


class RegistrationClosed(Forbidden):
    detail = "Registration is closed"


class UserNotFound(NotFound):
    detail = "User not found"


class UsernameTaken(Conflict):
    detail = "The username is taken"


class LastAdministrator(Conflict):
    detail = "The last administrator cannot be removed"


class UserDisabled(Conflict):
    detail = "The user is disabled"


class ResetNotSent(Unavailable):
    detail = "The reset token could not be sent"
