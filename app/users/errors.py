"""Why an account cannot be made.

AppError
├── UsernameTaken       409
└── RegistrationClosed  403
"""

from app.errors import Conflict, Forbidden


class UsernameTaken(Conflict):
    detail = "The username is taken"


class RegistrationClosed(Forbidden):
    detail = "Registration is closed"
