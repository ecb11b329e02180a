"""How the simulator behaves: its limits, its faults and its tokens. Given at the start, changed while it runs."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Outcome = Annotated[
    str,
    Field(
        pattern=r"^(ok|slow|silent|reset|dropped|garbage|http:[2-5]\d\d|\d{1,7})$",
        description="`ok`; `slow` accepts and answers late; `silent` accepts and never answers; `reset` accepts, then "
        "breaks the connection; `dropped` breaks it without accepting; `garbage` accepts and answers nonsense; "
        "`http:503` answers that status with an empty body; a number answers that WhatsApp error code.",
    ),
]
"""What becomes of one request."""

Share = Annotated[float, Field(ge=0, le=1)]

LastStatus = Literal["none", "sent", "delivered", "read", "failed"]
"""What the last status webhook of an accepted message says; `none`: there is no webhook."""


class Plan(BaseModel):
    """Everything that can be set. Times are in milliseconds and rates per second, as it is JSON for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = Field(0, description="Decides each outcome, with the recipient and the attempt: runs repeat.")
    shares: dict[Outcome, Share] = Field({}, description="Outcome to share of the requests; the rest is `ok`.")
    recipients: dict[str, Outcome] = Field({}, description="Recipient to the outcome that it always has.")
    latency_ms: float = Field(0, ge=0, description="Time before each answer.")
    jitter_ms: float = Field(0, ge=0, description="Up to so much more, by the seed.")
    slow_ms: float = Field(5000, ge=0, description="Time before an answer whose outcome is `slow`.")
    retry_after_s: int = Field(1, ge=0, description="Retry-After of answers with status 429 or 503; 0: none is sent.")
    rate: float = Field(80, ge=0, description="Messages per second that a number may send; 0: no limit.")
    rates: dict[str, Annotated[float, Field(ge=0)]] = Field({}, description="Number id to its own rate.")
    pair_limit: bool = Field(
        default=True, description="One message per 6 s from a number to a recipient, 45 ahead; above it 131056."
    )
    tokens: frozenset[str] = Field(frozenset(), description="Access tokens that are good; none: any is.")
    revoked_tokens: frozenset[str] = Field(frozenset(), description="Access tokens that are answered with 190.")

    webhook_url: str = Field(
        "", description="Where status webhooks go; empty: none are sent.", pattern="^(https?://.+)?$"
    )
    app_secret: str = Field("", description="Signs the webhooks.")
    statuses: dict[LastStatus, Share] = Field(
        {}, description="Last status to share of the accepted messages; the rest is `delivered`."
    )
    status_error: int = Field(131026, ge=0, description="Error code of `failed` statuses.")
    status_delay_ms: float = Field(
        0, ge=0, description="From the answer to the first status, and from each to the next."
    )
    status_batch: int = Field(1, ge=1, le=1000, description="Most statuses in one webhook.")
    duplicate_share: Share = Field(0, description="Share of the statuses that come twice.")
    early_share: Share = Field(0, description="Share of the messages whose first status comes before the answer.")
    shuffle: bool = Field(default=False, description="A message's statuses come in any order.")

    @model_validator(mode="after")
    def _shares_fit(self) -> Self:
        if sum(self.shares.values()) > 1 or sum(self.statuses.values()) > 1:
            raise ValueError("the shares add up to more than 1")
        return self

    def changed(self, changes: dict[str, object]) -> "Plan":
        """This plan with `changes`, each replacing a whole field. Raises pydantic's ValidationError."""
        return Plan.model_validate(self.model_dump() | changes)

    def rate_of(self, number: str) -> float:
        """Messages per second that `number` may send; 0 means no limit."""
        return self.rates.get(number, self.rate)
