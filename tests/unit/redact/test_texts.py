"""What is taken for a secret, and what is not: a table of texts as people, servers and libraries write them."""

from __future__ import annotations

import json

import pytest

from holdfast import redact

# Made here, so that no scanner of this repository takes them for real ones.
MIXED = "aB3dE5gH7jK9mN1pQ3sT5vW7yZ9bC1eF3hJ5kL7nP9qR1tV3xY5zA7cD9fG1hK3mN5pQ7sT9vW1yZ3a"
HEX = "0f1e2d3c4b5a69788796a5b4c3d2e1f0" * 2
CAPITALS = "Q3W5E7R2T4Y6U2I3"
JWT = f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{MIXED[:43]}"
AWS = "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY"
PEM = f"-----BEGIN RSA PRIVATE KEY-----\n{MIXED[:64]}\n{MIXED[:20]}==\n-----END RSA PRIVATE KEY-----"

TOKENS = (
    # By provider. The formats are those of gitleaks' rules (gitleaks/gitleaks, config/gitleaks.toml) and of the providers' pages.
    f"sk-{MIXED[:20]}T3Blbk" + f"FJ{MIXED[:20]}",  # OpenAI
    f"sk-proj-{MIXED[:64]}",
    f"sk-svcacct-{MIXED[:64]}",
    f"sk-None-{MIXED[:48]}",  # mongodb/kingfisher#68
    f"sk-ant-api03-{MIXED}AA",
    f"sk-or-v1-{HEX}",  # OpenRouter
    f"sk-{HEX[:32]}",  # DeepSeek
    f"AIza{MIXED[:35]}",
    f"AQ.{MIXED[:48]}",  # Google's keys since 2026: tashfeenahmed/freellmapi#578
    f"GOCSPX-{MIXED[:28]}",
    f"ya29.{MIXED[:60]}",
    f"gsk_{MIXED[:52]}",  # Groq
    f"xai-{MIXED}",
    f"pplx-{MIXED[:48]}",
    f"hf_{MIXED[:34]}",
    f"nvapi-{MIXED[:64]}",
    f"r8_{MIXED[:37]}",
    f"AKIA{CAPITALS}",
    f"ASIA{CAPITALS}",
    f"ABSK{MIXED}{MIXED}=",  # Bedrock
    f"ghp_{MIXED[:36]}",
    f"github_pat_{MIXED[:22]}_{MIXED[:59]}",
    f"glpat-{MIXED[:20]}",
    f"xoxb-263594206564-2343594206574-{MIXED[:24]}",
    f"sk_live_{MIXED[:24]}",
    f"rk_test_{MIXED[:24]}",
    f"whsec_{MIXED[:32]}",
    f"SK{HEX[:32]}",  # Twilio
    f"SG.{MIXED[:22]}.{MIXED[:43]}",
    f"npm_{MIXED[:36]}",
    f"pypi-AgEIcHlwaS5vcmc{MIXED}",
    f"dapi{HEX[:32]}",
    f"abc8Q~{MIXED[:34]}",  # Azure
    f"hvs.{MIXED}",
    f"110201543:AA{MIXED[:33]}",  # Telegram
    f"re_{MIXED[:8]}_{MIXED[:24]}",
    JWT,
    PEM,
    PEM.replace("\n", "\r\n"),
    PEM.replace("\n", "\\n"),
    PEM[:96],
)
WITHOUT_PREFIX = (AWS, f"{(MIXED * 2)[:86]}==")  # the secret keys of AWS and of Azure's storage accounts

SECRETS = (
    # A text, and what is left of it.
    ("Authorization: Bearer abcdefgh12345678", "Authorization: [redacted]"),
    ("Authorization: Basic dXNlcjpwYXNz", "Authorization: [redacted]"),
    ("401: Basic dXNlcjpwYXNz was refused", "401: [redacted] was refused"),
    ('headers={"proxy-authorization": "ApiKey 0f1e2d3c4b5a"}', 'headers={"proxy-authorization": "[redacted]"}'),
    ("Authorization: Token correcthorse", "Authorization: [redacted]"),
    ("key sk-proj-aaaabbbbccccddddeeee was refused", "key [redacted] was refused"),
    ("Incorrect API key provided: sk-abcd1234efgh5678ijkl.", "Incorrect API key provided: [redacted]."),
    ("x-api-key: 0f1e2d3c4b5a", "x-api-key: [redacted]"),
    ("Cookie: session=abc123; csrf=def456\nHost: a", "Cookie: [redacted]\nHost: a"),
    ("https://user:hunter2secret@host/db", "https://user:[redacted]@host/db"),
    ("postgresql://app:p%40ss@db.internal:5432/app", "postgresql://app:[redacted]@db.internal:5432/app"),
    ("postgres://app:p/ss@db/app", "postgres://app:[redacted]@db/app"),
    ("amqp://app:p@ss@mq", "amqp://app:[redacted]@mq"),
    ("redis://:hunter2@cache:6379/0", "redis://:[redacted]@cache:6379/0"),
    (f"https://{HEX[:40]}@github.com/a/b", "https://[redacted]@github.com/a/b"),
    (r"https:\/\/user:hunter2@host", r"https:\/\/user:[redacted]@host"),
    ("?api_key=deadbeef&user=ann", "?api_key=[redacted]&user=ann"),
    (f"https://blob/x?sv=2022&sig={MIXED[:43]}%3D", "https://blob/x?sv=2022&sig=[redacted]"),
    (f"AccountName=shop;AccountKey={MIXED};Suffix=x", "AccountName=shop;AccountKey=[redacted];Suffix=x"),
    ("password=hunter2secret", "password=[redacted]"),
    ("Server=db;Password=hunter2;Timeout=3", "Server=db;Password=[redacted];Timeout=3"),
    ("export OPENAI_API_KEY=not-a-usual-key", "export OPENAI_API_KEY=[redacted]"),
    ("PGPASSWORD=a psql", "PGPASSWORD=[redacted] psql"),
    (f"aws_secret_access_key = {AWS}", "aws_secret_access_key = [redacted]"),
    ("ClientError(password='hunter2', user='ann')", "ClientError(password='[redacted]', user='ann')"),
    ("{'password': b'hunter2'}", "{'password': b'[redacted]'}"),
    ('{"clientSecret": "a b c", "n": 1}', '{"clientSecret": "[redacted]", "n": 1}'),
    (r'{"password": "a\"b", "n": 1}', '{"password": "[redacted]", "n": 1}'),
    (r'"{\"password\": \"hunter2\", \"n\": 1}"', r'"{\"password\": \"[redacted]\", \"n\": 1}"'),
    ('{"password": 123456}', '{"password": [redacted]'),
    ("password: p@ssw0rd!", "password: [redacted]"),
    ("<password>hunter2x</password>", "<password>[redacted]</password>"),
    ("user[password]=hunter2", "user[password]=[redacted]"),
    ("mysql --password hunter2 shop", "mysql --password [redacted] shop"),
    ("Command '['mysql', '--password', 'hunter2']' failed", "Command '['mysql', '--password', '[redacted]']' failed"),
    ("token=9f86d081884c7d65", "token=[redacted]"),
    (f"line\\n{'sk-ant-'}api03-abcdefghijkl", "line\\n[redacted]"),
    ("q%3Dsk-ant-api03-abcdefghijkl", "q%3D[redacted]"),
    (f"{PEM} and so on", "[redacted] and so on"),
)

ORDINARY = (
    # A text that stays, and why it does.
    ("Basic authentication is not supported for this endpoint", "what follows is no base64 of a user and a password"),
    ("basic understanding", "the same"),
    ("Bearer authentication is required", "a word follows"),
    ("bearer tokens expire; a bearer of bad news", "words follow"),
    ('WWW-Authenticate: Bearer realm="example", error="invalid_token"', "parameters follow"),
    ("the authorization: required for this endpoint", "a word follows"),
    ("column pk_customer_orders does not exist", "words follow the prefix"),
    ("unknown region sk-southwest1-backup", "words with a number follow the prefix"),
    ("npm_config_registry, hf_transformers_cache_dir", "names of variables"),
    ("pplx-70b-online, sk-internationalization", "names of models and locales"),
    ("task-force-sk-aB3dE5gH7jK9", "the prefix is a part of a name"),
    ("ticket-1234 of order 4711-0815-2342", "ids of sessions and orders"),
    ("550e8400-e29b-41d4-a716-446655440000", "a UUID"),
    ("01ARZ3NDEKTSV4RRFFQ69G5FAV", "a ULID"),
    ("commit 356a192b7913b04c54574d18c28d46e6395428ab", "a hash of git"),
    ("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "a digest"),
    (f"sha512-{(MIXED * 2)[:86]}==", "a digest in base64, as npm writes it"),
    ("chatcmpl-9xYzAbCdEfGhIjKlMnOpQrStUvWx", "an id of an answer"),
    ("msg_01XFDUDYJgAACzvnptvVoYEL toolu_01A09q90qw90lq917835lq9", "ids of a message and of a tool call"),
    ("call_9pw1qnYScqvGrCH58HWCvFH6", "an id of a tool call"),
    ("re_3MmlLrLkdIwHu7ix0snN0B15 is the refund", "an id of Stripe, with the prefix of Resend's keys"),
    ("AIDACKCEVSQ6C2EXAMPLE", "the id of a user of AWS"),
    ("eyJwYWdlIjoyfQ", "base64 of JSON, as a cursor has it"),
    (f"data:image/png;base64,iVBORw0KGgo{MIXED * 3}", "an image: no length of a key"),
    ("/home/app/Projects2/holdfast/runtime/turns/Flight.py", "a path"),
    ("2026-11-28T12:00:00Z 127.0.0.1:8080", "a time and an address"),
    ("max_tokens=100 total_tokens: 15 token_type=bearer", "no name of a secret ends so"),
    ("unexpected token: identifier", "a word"),
    ('{"token": "Hello", "logprob": -0.1}', "a token of a model"),
    ("password_policy=strict, password: field required", "a longer name; a word follows the colon"),
    ("the password is wrong: it must have 8 characters", "prose"),
    ("5 passed, 3 failed; pass: 5", "the result of tests"),
    ("api_key=None, password='', secret: null, password=***", "nothing is there"),
    ("password=${DB_PASSWORD} api_key=<your key>", "a placeholder"),
    ('client = OpenAI(api_key=os.environ["OPENAI_API_KEY"])', "code"),
    ("return login(user, password=self.password)", "code"),
    ('{"properties": {"password": {"type": "string"}}, "required": ["password", "email"]}', "a JSON Schema"),
    ("idempotency_key=550e8400-e29b-41d4-a716-446655440000 key=customer-42", "keys that open nothing"),
    ("http://localhost:4873/@scope/pkg", "a port"),
    ("git@github.com:a/b.git ssh://git@github.com/a/b ann@example.com", "a user without a password"),
    ("https://example.com/users/ann@example.com?x=1:2", 'an "@" in a path'),
    ("docker://nginx:1.25@sha256:abcd", "a tag of an image"),
    ("http://[fe80::1]:8080/x@y", "an address"),
    ("the file begins with -----BEGIN PRIVATE KEY----- and more", "only the first line of a key"),
    (PEM.replace("RSA PRIVATE KEY", "CERTIFICATE"), "a certificate is public"),
    ("Set-Cookie is missing", "prose"),
)


AROUND = ("{}", "the key {} was refused", '{{"k": "{}"}}', "k={}", "({})", "{}\n", "x\\n{}", "https://h/v1/{}?a=1")


@pytest.mark.parametrize("token", TOKENS)
def test_a_token_of_a_provider_is_masked_wherever_it_stands(token: str) -> None:
    for around in AROUND:
        assert redact.text(around.format(token)) == around.format(redact.MASK)


@pytest.mark.parametrize("token", WITHOUT_PREFIX)
def test_a_key_without_a_prefix_is_masked_where_it_stands_alone(token: str) -> None:
    for around in AROUND[:-1]:
        assert redact.text(around.format(token)) == around.format(redact.MASK)


@pytest.mark.parametrize(("text", "left"), SECRETS)
def test_a_secret_is_masked_and_the_rest_stays(text: str, left: str) -> None:
    assert redact.text(text) == left


@pytest.mark.parametrize(("text", "why"), ORDINARY)
def test_an_ordinary_text_stays(text: str, why: str) -> None:
    assert redact.text(text) == text


@pytest.mark.parametrize("text", [*TOKENS, *(text for text, _ in SECRETS)])
def test_what_is_redacted_once_stays_as_it_is(text: str) -> None:
    """Each text passes here several times: when it is recorded, logged, and displayed."""
    once = redact.text(text)
    assert redact.text(once) == once
    assert redact.text(json.dumps(once)) == json.dumps(once)


def test_the_table_is_half_secret_half_not() -> None:
    assert min(len(SECRETS), len(ORDINARY)) >= 30
