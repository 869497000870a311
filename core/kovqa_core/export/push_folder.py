"""`kovqa export --push`: a finished folder becomes a repository of the Hugging Face hub, by the hub's own library.

Files go up first, each once: what is there already is not sent again, so a push that was interrupted is typed again. They
appear together, by one commit. Source: docs/sources/hub_models.md; huggingface_hub, `HfApi.upload_folder`.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kovqa_core.download.hub_copies import parse_hub_name
from kovqa_core.download.table import endpoint_url
from kovqa_core.errors import AssetError, SettingsError
from kovqa_core.export.model_origin import ModelOrigin
from kovqa_core.messages import Message, message
from kovqa_core.net.hosts import require_private_channel

_REASON_LENGTH = 300  # characters of what a server says


@dataclass(frozen=True)
class PushTarget:
    """A repository that may be written.

    Attributes:
        repository: OWNER/NAME.
        endpoint: address of the hub.
        account: whose token it is.
        is_there: does the repository exist already?
        is_public: will everybody see it?
    """

    repository: str
    endpoint: str
    account: str
    is_there: bool
    is_public: bool


@dataclass(frozen=True)
class PushReport:
    """What was sent: the address of the repository, and its commit."""

    url: str
    commit: str


def find_push_target(repository: str, *, public: bool) -> PushTarget:
    """See, before hours of work, that a repository can be written.

    Args:
        repository: OWNER/NAME.
        public: may everybody see it?

    Raises:
        SettingsError: no such name; a repository that is public already, and nobody said so.
        AssetError: there is no token, the hub refuses it, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    name = parse_hub_name(repository)
    if name is None or name.revision or "/" not in name.repo or repository.startswith("hf:"):
        raise SettingsError(
            message("export.no-repository-name", "--push {name} is not OWNER/NAME", name=repository),
            message(
                "export.no-repository-name.hint", "name your account and the model: --push me/korean-vqa"
            ),
        )
    endpoint, token = endpoint_url("hub"), _token()
    require_private_channel(endpoint, message("export.token", "the hub's token"))
    api = HfApi(endpoint=endpoint, token=token)
    nothing_yet = message(
        "export.push-refused.hint",
        "nothing was written yet: check the token (hf auth login), its rights and the network",
    )
    with _hub_errors(endpoint, token, nothing_yet):
        account = str(api.whoami().get("name", ""))
        try:
            is_private: bool | None = bool(api.model_info(repository).private)
        except RepositoryNotFoundError:
            is_private = None
    if is_private is False and not public:
        raise SettingsError(
            message("export.repository-is-public", "{name} is there, and public", name=repository),
            message("export.repository-is-public.hint", "choose another name, or say --public"),
        )
    is_public = public if is_private is None else not is_private
    return PushTarget(repository, endpoint, account, is_private is not None, is_public)


def publication_warnings(origin: ModelOrigin | None, licence: str) -> list[Message]:
    """What should keep people from publishing a model, as far as it is known here.

    Args:
        origin: what it was made of.
        licence: that its card states; "": none.
    """
    warnings = []
    if not licence:
        warnings.append(
            message(
                "export.push-without-licence",
                "the card states no licence: nobody may use it (--licence NAME)",
            )
        )
    for base in origin.bases if origin else ():
        if base.is_non_commercial:
            warnings.append(
                message(
                    "export.push-non-commercial",
                    "base model {base} is not for commercial use ({licence}), and this model is made of it",
                    base=base.name,
                    licence=base.licence or base.terms,
                )
            )
        if base.is_gated:
            warnings.append(
                message(
                    "export.push-gated",
                    "base model {base} is given to people only who agreed to its terms: do these let you pass it on?",
                    base=base.name,
                )
            )
    if origin and origin.is_of_aihub:
        warnings.append(
            message(
                "export.push-aihub",
                "it was trained on data of AI-Hub: research, name the source, no redistribution of the data; see its terms",
            )
        )
    return warnings


def push_folder(folder: Path, target: PushTarget, text: str) -> PushReport:
    """Send a finished folder.

    Args:
        folder: what `export_checkpoint` wrote.
        target: where to.
        text: of the commit.

    Raises:
        AssetError: the hub refuses it, or the network fails; typed again it goes on.
    """
    from huggingface_hub import HfApi

    token = _token()
    api = HfApi(endpoint=target.endpoint, token=token)
    whole = message(
        "export.push-failed.hint",
        "the folder is whole; type the command again: what has arrived is not sent again",
    )
    with _hub_errors(target.endpoint, token, whole):
        # A repository that came into being meanwhile stays as visible as it is.
        url = api.create_repo(target.repository, private=not target.is_public, exist_ok=True)
        if not target.is_public and not api.model_info(target.repository).private:
            raise SettingsError(
                message("export.repository-is-public", "{name} is there, and public", name=target.repository),
                message("export.repository-is-public.hint", "choose another name, or say --public"),
            )
        commit = api.upload_folder(
            repo_id=target.repository, folder_path=folder, commit_message=text, ignore_patterns=[".*"]
        )
    return PushReport(str(url), commit.oid)


def _token() -> str:
    """The hub's token, from where its own library has it.

    Raises:
        AssetError: there is none.
    """
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise AssetError(
            message("export.no-token", "no token of the hub is here"),
            message(
                "export.no-token.hint", "log in: hf auth login (a token that may write), or set HF_TOKEN"
            ),
        )
    return token


@contextlib.contextmanager
def _hub_errors(endpoint: str, token: str, hint: Message) -> Iterator[None]:
    """Whatever the library raises, in one line without the token."""
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, OSError, ValueError) as error:
        server_text = getattr(error, "server_message", None) or str(error)
        reason = re.sub(r"\s+", " ", server_text.replace(token, "…")).strip()[:_REASON_LENGTH]
        raise AssetError(
            message("export.push-failed", "{endpoint}: {reason}", endpoint=endpoint, reason=reason), hint
        ) from None
