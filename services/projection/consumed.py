"""What the projection reads."""

from __future__ import annotations

from libs.bus.codec import Decoders
from libs.bus.port import TopicFamily, Topics
from libs.contracts import topics

# Families, so that the topics of gateways configured later are found too. One consumer reads both priorities: here nothing waits for
# the high one.
CONSUMED: Topics = (
    TopicFamily(r"^sms\.requested(\.high)?$", like=topics.REQUESTED),
    TopicFamily(topics.DISPATCH_PATTERN, like=topics.dispatch("any")),
    TopicFamily(r"^sms\.returned(\.high)?$", like=topics.RETURNED),
    TopicFamily(r"^sms\.deferred(\.high)?$", like=topics.DEFERRED),
    topics.STATUS,
    topics.COMMANDS,
)

DECODERS = Decoders(CONSUMED)
