"""Files and batches of an endpoint's Batch API. Everything that it answers is checked."""

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import httpx2
import openai
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from distill.core.errors import UserError
from distill.generation.api.client import QueryJob
from distill.generation.api.failures import failure, fatal_message
from distill.generation.api.http import sdk_client
from distill.generation.api.secrets import shown
from distill.generation.completions import Request

URL: Final = "/v1/chat/completions"  # every endpoint uses this path, whatever its base URL
MAX_PAGES = 1000  # of 100 batches, in the list of all

Identifier = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[\w:=+-]+([./][\w:=+-]+)*$")]


class File(BaseModel):
    """An uploaded file."""

    id: Identifier


class Batch(BaseModel):
    """The parts of a batch's description that matter."""

    id: Identifier
    status: Annotated[str, Field(max_length=60)]
    output_file_id: Identifier | None = None
    error_file_id: Identifier | None = None
    metadata: Annotated[dict[str, Any], BeforeValidator(lambda value: value or {})] = {}
    errors: Any = None
    request_counts: Any = None


class BatchPage(BaseModel):
    """A page of the list of all batches."""

    data: list[Batch]
    has_more: bool = False


class BatchEndpoint:
    """The Batch API of one teacher. Use it as a context manager, and turn its errors into messages by `refusal`."""

    ERRORS = (openai.APIError, ValueError, RecursionError)

    def __init__(self, job: QueryJob) -> None:
        self._job, self._sdk = job, sdk_client(job)
        self._server = f"{job.teacher.base_url} of teacher {job.teacher.name!r}"

    async def close(self) -> None:
        """Closes the connections."""
        await self._sdk.close()

    async def create(self, name: str, lines: bytes) -> Batch:
        """Uploads the requests and creates a batch of them under a name."""
        uploaded = await self._sdk.files.with_raw_response.create(file=(f"{name}.jsonl", lines), purpose="batch")
        file = File.model_validate(json.loads(uploaded.content))
        body = {
            "completion_window": "24h", "endpoint": URL, "input_file_id": file.id, "metadata": {"name": name},
        }  # fmt: skip
        reply = await self._sdk.post("/batches", cast_to=httpx2.Response, body=body)
        return Batch.model_validate(json.loads(reply.content))

    async def retrieve(self, batch_id: str) -> Batch:
        """The state of a batch."""
        reply = await self._sdk.get(f"/batches/{batch_id}", cast_to=httpx2.Response)
        return Batch.model_validate(json.loads(reply.content))

    async def download(self, file_id: str) -> bytes:
        """The lines of a result file."""
        reply = await self._sdk.get(f"/files/{file_id}/content", cast_to=httpx2.Response)
        return reply.content

    async def find(self, name: str) -> Batch | None:
        """The batch of that name, if the account has one."""
        async for batch in self._all():
            if batch.metadata.get("name") == name:
                return batch
        return None

    async def _all(self) -> AsyncIterator[Batch]:
        """Every batch of the account, until a page has no new one. Raises UserError for a list without end."""
        known: set[str] = set()
        params = {"limit": "100"}
        for _ in range(MAX_PAGES):
            reply = await self._sdk.get("/batches", cast_to=httpx2.Response, options={"params": params})
            page = BatchPage.model_validate(json.loads(reply.content))
            new = [batch for batch in page.data if batch.id not in known]
            for batch in new:
                yield batch
            if not new or not page.has_more:
                return
            known |= {batch.id for batch in new}
            params = {"limit": "100", "after": page.data[-1].id}
        raise UserError(
            f"{self._server} must list fewer than {MAX_PAGES * 100:,} batches, got a list without end: whether an "
            "interrupted batch was created cannot be told. The journal has what was sent. Delete old batches of the "
            "account, or set `mode: live`, and run again."
        )

    def refusal(self, error: Exception) -> UserError:
        """The message for one of `ERRORS`."""
        reason = "its reply is not what the Batch API describes"
        if isinstance(error, ValidationError):
            reason += f" ({', '.join('.'.join(map(str, line['loc'])) for line in error.errors()[:5])})"
        if isinstance(error, openai.APIError):
            failed = failure(self._job, Request("", [], 0), error, 1).error or {}
            if fatal := fatal_message(self._job, failed["class"], failed["message"], 1):
                return UserError(fatal)
            reason = f"{failed['class']}: {failed['message']}"
        return UserError(
            f"{self._server} refused a batch: {shown(reason, self._job.key)}. The journal has what was sent; run again "
            "to resume."
        )
