"""The errors of accounts."""

from app.errors import AppError, Conflict, Forbidden, NotFound


class InvalidVerificationToken(AppError):
    status_code = 400
    error = "invalid_token"
    detail = "The verification token is invalid or has expired"
    code = "invalid_verification_token"


class RegistrationClosed(Forbidden):
    detail = "Registration is closed"
    code = "registration_closed"


class UserNotFound(NotFound):
    detail = "User not found"
    code = "user_not_found"


class MailNotConfigured(NotFound):
    detail = "The service sends no mail: an administrator sets SMTP_URL or MAIL_HOOK"
    code = "mail_not_configured"


class UsernameTaken(Conflict):
    detail = "The username is taken"
    code = "username_taken"


class EmailTaken(Conflict):
    detail = "Another account has verified this e-mail address"
    code = "email_taken"


class NothingToVerify(Conflict):
    detail = "The account has no e-mail address, or has verified it"
    code = "nothing_to_verify"


class NoVerifiedAddress(Conflict):
    detail = "The user has no verified e-mail address"
    code = "no_verified_address"


class LastAdministrator(Conflict):
    detail = "The last administrator cannot be removed"
    code = "last_administrator"


class UserDisabled(Conflict):
    detail = "The user is disabled"
    code = "user_disabled"
