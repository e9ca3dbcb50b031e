"""Queries through the Batch API: requests are uploaded as files, run for hours at a lower price, and downloaded."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import openai
from openai.types import Batch

from distill.core.errors import UserError
from distill.core.files import Row, value_hash
from distill.generation.api.client import NO_TOKENS, InFlightRequest, QueryJob, RequestScheduler, sdk_client
from distill.generation.api.live import failure, request_body
from distill.generation.api.parsing import from_result_line
from distill.generation.budget import cost
from distill.generation.completions import Completion, Request, failed_completion

MAX_REQUESTS, MAX_BYTES = 50_000, 150_000_000  # of one batch: OpenAI's limits are 50,000 and 200 MB
FIRST_POLL_S, MAX_POLL_S, POLL_FACTOR = 1.0, 60.0, 1.5
URL: Final = "/v1/chat/completions"  # every endpoint uses this path, whatever its base URL
NOTE_PREFIX = "batch/"
ENDED = ("completed", "expired", "cancelled", "failed")


def complete(job: QueryJob, requests: list[Request]) -> None:
    """Sends the requests in batches and journals the completions. Batches of an earlier run are resumed first.

    A batch that expired keeps its completions, and the rest is sent again. Raises UserError if the endpoint refuses
    a batch or the budget is used up, once the batches in flight have ended.
    """
    asyncio.run(_BatchRun(job).run(requests))


class _BatchRun:
    """The batches of one job. `attempted` are the ids of requests that have a completion from this run."""

    def __init__(self, job: QueryJob) -> None:
        self.job, self.scheduler = job, RequestScheduler(job)
        self.teacher, self.budget, self.journal = job.teacher, job.budget, job.journal
        self.attempted: set[str] = set()

    async def run(self, requests: list[Request]) -> None:
        async with sdk_client(self.job) as sdk:
            try:
                await self._run(sdk, requests)
            except openai.APIError as error:
                _, fatal = failure(self.job, Request("", [], 0), error, 1)
                reason = str(error).replace(self.job.key, "***")[:200]
                raise fatal or UserError(
                    f"{self.teacher.base_url} of teacher {self.teacher.name!r} refused a batch: {reason}. "
                    "The journal has what was sent; run again to resume."
                ) from None

    async def _run(self, sdk: openai.AsyncOpenAI, requests: list[Request]) -> None:
        by_id = {request.id: request for request in requests}
        for record in self._open_batches():
            for request_id in record["ids"]:
                self.budget.restore_reservation(self._max_cost(request_id))
        while True:
            await asyncio.gather(*(self._finish(sdk, record, by_id) for record in self._open_batches()))
            done = self.journal.completed | self.attempted
            todo = [request for request in requests if request.id not in done]
            if not todo:
                return
            for batch_requests in self._split(todo):
                await self._send(sdk, batch_requests)

    def _open_batches(self) -> list[Row]:
        """The records of batches that have not ended."""
        records = (value for key, value in self.journal.notes.items() if key.startswith(NOTE_PREFIX))
        return [record for record in records if not record["ended"]]

    def _max_cost(self, request_id: str) -> float:
        return cost(self.teacher.price, self.journal.in_flight.get(request_id, NO_TOKENS))

    def _split(self, requests: list[Request]) -> Iterator[list[tuple[Request, InFlightRequest]]]:
        """The requests in batches within the limits of endpoint and budget. Raises UserError if the budget allows
        none."""
        batch: list[tuple[Request, InFlightRequest]] = []
        size = 0
        for number, request in enumerate(requests):
            in_flight = self.scheduler.track(request)
            amount = cost(self.teacher.price, in_flight.max_billed)
            if number and not self.budget.fits(amount):
                break
            self.budget.reserve(amount, self.teacher)
            length = len(self._line(request))
            if batch and (len(batch) == MAX_REQUESTS or size + length > MAX_BYTES):
                yield batch
                batch, size = [], 0
            batch.append((request, in_flight))
            size += length
        yield batch

    def _line(self, request: Request) -> bytes:
        line = {"custom_id": request.id, "method": "POST", "url": URL, "body": request_body(self.job, request)}
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"

    async def _send(self, sdk: openai.AsyncOpenAI, batch_requests: list[tuple[Request, InFlightRequest]]) -> None:
        """Uploads and creates a batch. Its name is journaled before, so that a kill in between loses nothing."""
        ids = [request.id for request, _ in batch_requests]
        num_earlier = sum(key.startswith(NOTE_PREFIX) for key in self.journal.notes)
        for request, in_flight in batch_requests:
            self.journal.record_sent(request.id, in_flight.max_billed)
        record = {"name": value_hash([num_earlier, ids])[:32], "ids": ids, "batch": None, "ended": False}
        self._save(record)
        await self._create(sdk, record, [request for request, _ in batch_requests])

    async def _create(self, sdk: openai.AsyncOpenAI, record: Row, requests: list[Request]) -> Batch:
        lines = b"".join(self._line(request) for request in requests)
        file = await sdk.files.create(file=(f"{record['name']}.jsonl", lines), purpose="batch")
        batch = await sdk.batches.create(
            completion_window="24h", endpoint=URL, input_file_id=file.id, metadata={"name": record["name"]}
        )
        self._save(record | {"batch": batch.id})
        return batch

    def _save(self, record: Row) -> None:
        self.journal.note(NOTE_PREFIX + record["name"], record)

    async def _finish(self, sdk: openai.AsyncOpenAI, record: Row, by_id: dict[str, Request]) -> None:
        """Waits for the end of a batch and journals its completions.

        A batch without a request of this run is only read if it has ended.
        """
        requests = [by_id[request_id] for request_id in record["ids"] if request_id in by_id]
        batch = await self._find(sdk, record, requests)
        if batch is not None and batch.status not in ENDED:
            if not requests:
                return
            batch = await self._wait(sdk, batch, len(record["ids"]))
        completions = {} if batch is None else await self._download(sdk, batch)
        self._journal(record["ids"], completions)
        self._save(record | {"batch": batch.id if batch is not None else None, "ended": True})
        if batch is not None and not completions and requests:
            errors = (
                "; ".join(str(error.message) for error in (batch.errors.data or [])) if batch.errors else "no reason"
            )
            raise UserError(
                f"a batch of teacher {self.teacher.name!r} ({self.teacher.base_url}) ended as {batch.status!r} without "
                f"a response: {errors.replace(self.job.key, '***')[:300]}. All responses so far are kept; run again "
                "to send it again."
            )

    async def _wait(self, sdk: openai.AsyncOpenAI, batch: Batch, num_requests: int) -> Batch:
        """Polls a batch until it has ended, with its progress on the bar."""
        pause = FIRST_POLL_S
        while batch.status not in ENDED:
            await asyncio.sleep(pause)
            pause = min(MAX_POLL_S, pause * POLL_FACTOR)
            batch = await sdk.batches.retrieve(batch.id)
            if batch.request_counts is not None:
                progress = f"{batch.request_counts.completed} of {num_requests}"
                self.job.bar.set_postfix_str(f"batch {batch.status}, {progress}")
        return batch

    async def _download(self, sdk: openai.AsyncOpenAI, batch: Batch) -> dict[str, Completion]:
        """The completions of an ended batch by request id."""
        completions: dict[str, Completion] = {}
        for file in (batch.output_file_id, batch.error_file_id):
            if file is not None:
                content = await sdk.files.content(file)
                for line in content.content.splitlines():
                    completion = from_result_line(line, self.job.key)
                    if completion is not None:
                        max_billed = self.journal.in_flight.get(completion.id, NO_TOKENS)
                        billed = completion.billed or completion.usage or max_billed
                        completions[completion.id] = replace(completion, billed=billed)
        return completions

    def _journal(self, request_ids: list[str], completions: dict[str, Completion]) -> None:
        """Journals and books the completions of a batch, then the failures of requests without one."""
        missing = [request_id for request_id in request_ids if request_id not in completions]
        failures = [
            failed_completion(Request(request_id, [], 0), "batch", "the batch ended without it")
            for request_id in missing
        ]
        completed = [completions[request_id] for request_id in request_ids if request_id in completions]
        for completion in completed + [replace(item, billed=NO_TOKENS) for item in failures]:
            paid = cost(self.teacher.price, completion.billed or NO_TOKENS)
            self.budget.record(self._max_cost(completion.id), paid)
            self.journal.append([completion])
            if completion.error is None:
                self.job.bar.update()
        self.attempted |= completions.keys() & set(request_ids)

    async def _find(self, sdk: openai.AsyncOpenAI, record: Row, requests: list[Request]) -> Batch | None:
        """The batch of a record. If a kill came before its id was journaled, it is found by its name.

        None if it was never created and has no request of this run; otherwise it is created now.
        """
        if record["batch"] is not None:
            return await sdk.batches.retrieve(record["batch"])
        async for batch in sdk.batches.list(limit=100):
            if (batch.metadata or {}).get("name") == record["name"]:
                self._save(record | {"batch": batch.id})
                return batch
        return await self._create(sdk, record, requests) if requests else None
