"""The claims of each kind of token."""

import re
from functools import cached_property
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

GENERATION = re.compile(r"\.([1-9][0-9]{0,8})\Z")

UUIDText = Annotated[str, Field(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\z")]
EpochSeconds = Annotated[int, Field(ge=0, lt=2**40)]


class Claims(BaseModel):
    """The claims of every token (RFC 7519 §4.1). Unknown claims are ignored (§4): a newer version may add some."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
    typ: ClassVar[str]
    algorithms: ClassVar = frozenset({"HS256"})

    iss: str
    aud: str
    sub: UUIDText
    jti: Annotated[str, Field(min_length=1, max_length=64)]
    iat: EpochSeconds
    exp: EpochSeconds


class SessionClaims(Claims):
    sid: UUIDText
    scope: Annotated[str, Field(max_length=255)]

    @property
    def scopes(self) -> frozenset[str]:
        return frozenset(self.scope.split())

    @cached_property
    def generation(self) -> int:
        """The end of `jti`, because older versions refuse unknown claims. A token without it counts as the first."""
        found = GENERATION.search(self.jti)
        return int(found[1]) if found else 1


class AccessClaims(SessionClaims):
    typ = "at+jwt"  # RFC 9068 §2.1
    algorithms = frozenset({"HS256", "ES256", "RS256"})


class RefreshClaims(SessionClaims):
    typ = "rt+jwt"

    gen: Annotated[int, Field(ge=1, lt=2**31)]


class ResetClaims(Claims):
    typ = "reset+jwt"

    pwd: Annotated[str, Field(max_length=64)]
    """The fingerprint of the only password hash that the token may replace."""


class VerificationClaims(Claims):
    typ = "verify+jwt"

    adr: Annotated[str, Field(max_length=64)]
    """The digest of the only e-mail address that the token verifies."""
