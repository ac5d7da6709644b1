"""Values to bytes and back: MessagePack through msgspec, with closed types. Only the annotated type decides how bytes are decoded; the
bytes cannot name a class.

There are two codecs. What users' types hold (`typed`) is stored whole, by the type's own rules, and comes back equal; a type that cannot
is refused where it is declared. What a provider answers (`answers`) is stored as it came, and built unchecked.
"""

from holdfast.codec.bounds import MAX_BYTES
from holdfast.codec.digests import arguments, body_of, canonical, digest
from holdfast.codec.encoding import NIL, decode, encode
from holdfast.codec.models import read_json, read_model
from holdfast.codec.numbers import pack, unpack
from holdfast.codec.plain import why_untyped
from holdfast.codec.shape import lost
from holdfast.codec.typed import Codec, codec_for

__all__ = [
    "MAX_BYTES",
    "NIL",
    "Codec",
    "arguments",
    "body_of",
    "canonical",
    "codec_for",
    "decode",
    "digest",
    "encode",
    "lost",
    "pack",
    "read_json",
    "read_model",
    "unpack",
    "why_untyped",
]
