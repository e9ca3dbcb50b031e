"""A teacher asked by the Batch API: files go up, a batch runs for hours at a lower price, files come down."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import openai

from distill.core.errors import UserError
from distill.core.files import value_hash
from distill.generation.api.client import NOTHING, Account, Job, Ticket, client
from distill.generation.api.live import body, failure, from_completion
from distill.generation.budget import cost
from distill.generation.completions import Answer, Request, failed

MOST_REQUESTS, MOST_BYTES = 50_000, 150_000_000  # of one batch: OpenAI's limits are 50,000 and 200 MB
FIRST_POLL_S, LONGEST_POLL_S, SLOWER = 1.0, 60.0, 1.5
URL: Final = "/v1/chat/completions"  # as every endpoint names it, wherever its own begins
NOTE = "batch/"
EXPIRED = "batch_expired"
ENDED = ("completed", "expired", "cancelled", "failed")


def answer(job: Job, requests: list[Request]) -> None:
    """Asks the requests in batches and journals the answers; takes up the batches of an earlier run first.

    A batch that expired keeps its answers, and the rest is asked again. Raises UserError for what the endpoint
    refuses as a whole and for a used-up budget, once the batches that were sent have ended.
    """
    asyncio.run(_Batches(job).all(requests))


class _Batches:
    """The batches of one job."""

    def __init__(self, job: Job) -> None:
        self.job, self.account = job, Account(job)
        self.teacher, self.budget, self.journal = job.teacher, job.budget, job.journal

    async def all(self, requests: list[Request]) -> None:
        async with client(self.job) as sdk:
            try:
                await self._all(sdk, requests)
            except openai.APIError as error:
                _, fatal = failure(self.job, Request("", [], 0), error, 1)
                said = str(error).replace(self.job.key, "***")[:200]
                raise fatal or UserError(
                    f"{self.teacher.base_url} of teacher {self.teacher.name!r} refused a batch: {said}. "
                    "What was sent is remembered; run again to go on from there."
                ) from None

    async def _all(self, sdk: openai.AsyncOpenAI, requests: list[Request]) -> None:
        by_id = {request.id: request for request in requests}
        tried: set[str] = set()
        for note in self._open():
            for request_id in note["ids"]:
                self.budget.take_up(self._most(request_id))
        while True:
            await asyncio.gather(*(self._finish(sdk, note, by_id, tried) for note in self._open()))
            todo = [item for item in requests if item.id not in self.journal.answered and item.id not in tried]
            if not todo:
                return
            for part in self._parts(todo):
                await self._send(sdk, part)

    def _open(self) -> list[dict[str, Any]]:
        notes = (value for key, value in self.journal.notes.items() if key.startswith(NOTE))
        return [note for note in notes if not note["ended"]]

    def _most(self, request_id: str) -> float:
        return cost(self.teacher.price, self.journal.on_their_way.get(request_id, NOTHING))

    def _parts(self, requests: list[Request]) -> Iterator[list[tuple[Request, Ticket]]]:
        """The requests in batches that the endpoint takes and the budget allows. Raises UserError if it allows none."""
        part: list[tuple[Request, Ticket]] = []
        size = 0
        for number, request in enumerate(requests):
            ticket = self.account.ticket(request)
            amount = cost(self.teacher.price, ticket.most)
            if number and not self.budget.fits(amount):
                break
            self.budget.reserve(amount, self.teacher)
            length = len(self._line(request))
            if part and (len(part) == MOST_REQUESTS or size + length > MOST_BYTES):
                yield part
                part, size = [], 0
            part.append((request, ticket))
            size += length
        yield part

    def _line(self, request: Request) -> bytes:
        line = {"custom_id": request.id, "method": "POST", "url": URL, "body": body(self.job, request)}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    async def _send(self, sdk: openai.AsyncOpenAI, part: list[tuple[Request, Ticket]]) -> None:
        """Uploads and creates a batch. Its name is written down before, so that a kill in between loses none."""
        ids = [request.id for request, _ in part]
        earlier = sum(key.startswith(NOTE) for key in self.journal.notes)
        for request, ticket in part:
            self.journal.sent(request.id, ticket.most)
        note = {"name": value_hash([earlier, ids])[:32], "ids": ids, "batch": None, "ended": False}
        self._note(note)
        await self._create(sdk, note, [request for request, _ in part])

    async def _create(self, sdk: openai.AsyncOpenAI, note: dict[str, Any], requests: list[Request]) -> Any:
        lines = b"".join(self._line(request) for request in requests)
        file = await sdk.files.create(file=(f"{note['name']}.jsonl", lines), purpose="batch")
        batch = await sdk.batches.create(
            completion_window="24h", endpoint=URL, input_file_id=file.id, metadata={"name": note["name"]}
        )
        self._note(note | {"batch": batch.id})
        return batch

    def _note(self, note: dict[str, Any]) -> None:
        self.journal.note(NOTE + note["name"], note)

    async def _finish(
        self, sdk: openai.AsyncOpenAI, note: dict[str, Any], by_id: dict[str, Request], tried: set[str]
    ) -> None:
        """Waits for the end of a batch, with its progress on the bar, and journals what it answered.

        One that holds no request of this run is taken if it has ended, and not waited for.
        """
        wanted = [by_id[request_id] for request_id in note["ids"] if request_id in by_id]
        batch = await self._found(sdk, note, wanted)
        pause = FIRST_POLL_S
        while batch is not None and batch.status not in ENDED:
            if not wanted:
                return
            await asyncio.sleep(pause)
            pause = min(LONGEST_POLL_S, pause * SLOWER)
            batch = await sdk.batches.retrieve(batch.id)
            if batch.request_counts is not None:
                done = f"{batch.request_counts.completed} of {len(note['ids'])}"
                self.job.bar.set_postfix_str(f"batch {batch.status}, {done}")
        answers: dict[str, Answer] = {}
        for file in (batch.output_file_id, batch.error_file_id) if batch is not None else ():
            if file is not None:
                content = await sdk.files.content(file)
                items = map(self._answer, content.content.splitlines())
                answers |= {item.id: item for item in items if item is not None}
        left = {
            request_id: replace(
                failed(Request(request_id, [], 0), "batch", "the batch ended without it"), billed=NOTHING
            )
            for request_id in note["ids"]
            if request_id not in answers
        }
        for item in [answers[request_id] for request_id in note["ids"] if request_id in answers] + list(left.values()):
            self.budget.book(self._most(item.id), cost(self.teacher.price, item.billed or NOTHING))
            self.journal.append([item])
            if item.error is None:
                self.job.bar.update()
            if item.id in answers:
                tried.add(item.id)
        self._note(note | {"batch": batch.id if batch is not None else None, "ended": True})
        if batch is not None and not answers and wanted:
            errors = (
                "; ".join(str(error.message) for error in (batch.errors.data or [])) if batch.errors else "no reason"
            )
            raise UserError(
                f"a batch of teacher {self.teacher.name!r} ({self.teacher.base_url}) ended as {batch.status!r} without "
                f"an answer: {errors.replace(self.job.key, '***')[:300]}. All answers so far are kept; run again to "
                "send it anew."
            )

    async def _found(self, sdk: openai.AsyncOpenAI, note: dict[str, Any], wanted: list[Request]) -> Any:
        """The batch of a note; one that a kill kept from being written down is looked for by its name.

        None where it was never made and has no request of this run; else it is made now.
        """
        if note["batch"] is not None:
            return await sdk.batches.retrieve(note["batch"])
        async for batch in sdk.batches.list(limit=100):
            if (batch.metadata or {}).get("name") == note["name"]:
                self._note(note | {"batch": batch.id})
                return batch
        return await self._create(sdk, note, wanted) if wanted else None

    def _answer(self, line: bytes) -> Answer | None:
        """The answer that a line of a result file holds; None for a line that is none."""
        try:
            value = json.loads(line)
            request = Request(value["custom_id"], [], 0)
            reply, error = value.get("response") or {}, value.get("error") or {}
            status, content = reply.get("status_code"), reply.get("body")
            if status == 200:
                item = from_completion(request, content)
                most = self.journal.on_their_way.get(request.id, NOTHING)
                return replace(item, billed=item.usage or most)
            said = error or (content or {}).get("error") or content
            if error.get("code") == EXPIRED:
                return None
        except (ValueError, LookupError, TypeError, AttributeError):
            return None
        kind = f"http_{status}" if status else "batch"
        return replace(failed(request, kind, str(said).replace(self.job.key, "***"), error.get("code")), billed=NOTHING)
