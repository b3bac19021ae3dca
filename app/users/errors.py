"""The errors of accounts."""

from app.errors import Conflict, Forbidden, NotFound, Unavailable


class RegistrationClosed(Forbidden):
    detail = "Registration is closed"
    code = "registration_closed"


class UserNotFound(NotFound):
    detail = "User not found"
    code = "user_not_found"


class UsernameTaken(Conflict):
    detail = "The username is taken"
    code = "username_taken"


class LastAdministrator(Conflict):
    detail = "The last administrator cannot be removed"
    code = "last_administrator"


class UserDisabled(Conflict):
    detail = "The user is disabled"
    code = "user_disabled"


class ResetNotSent(Unavailable):
    detail = "The reset token could not be sent"
    code = "reset_not_sent"
