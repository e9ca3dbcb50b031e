"""Queries through the Batch API: requests are uploaded as files, run for hours at a lower price, and downloaded."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from distill.core.errors import UserError
from distill.core.files import Row, value_hash
from distill.generation.api.batch_endpoint import URL, Batch, BatchEndpoint
from distill.generation.api.client import NO_TOKENS, InFlightRequest, QueryJob, RequestScheduler
from distill.generation.api.live import request_body
from distill.generation.api.parsing import error_text, from_result_line
from distill.generation.api.secrets import shown
from distill.generation.budget import cost
from distill.generation.completions import Completion, Request, failed_completion

MAX_REQUESTS, MAX_BYTES = 50_000, 150_000_000  # of one batch: OpenAI's limits are 50,000 and 200 MB
FIRST_POLL_S, MAX_POLL_S, POLL_FACTOR = 1.0, 60.0, 1.5
NOTE_PREFIX = "batch/"
ENDED = ("completed", "expired", "cancelled", "failed")
MAX_WAIT_S = 48 * 3600.0  # a batch is promised within 24 hours


def complete(job: QueryJob, requests: list[Request]) -> None:
    """Sends the requests in batches and journals the completions. Batches of an earlier run are resumed first.

    A batch that expired keeps its completions, and the rest is sent again. Raises UserError if the endpoint refuses
    a batch or the budget is used up, once the batches in flight have ended.
    """
    asyncio.run(_BatchRun(job).run(requests))


class _BatchRun:
    """The batches of one job. `attempted` are the ids of requests that have a completion from this run."""

    def __init__(self, job: QueryJob) -> None:
        self.job, self.scheduler, self.endpoint = job, RequestScheduler(job), BatchEndpoint(job)
        self.teacher, self.budget, self.journal = job.teacher, job.budget, job.journal
        self.attempted: set[str] = set()

    async def run(self, requests: list[Request]) -> None:
        try:
            await self._run(requests)
        except BatchEndpoint.ERRORS as error:
            raise self.endpoint.refusal(error) from None
        finally:
            await self.endpoint.close()

    async def _run(self, requests: list[Request]) -> None:
        by_id = {request.id: request for request in requests}
        for record in self._open_batches():
            for request_id in record["ids"]:
                self.budget.restore_reservation(self._max_cost(request_id))
        while True:
            await asyncio.gather(*(self._finish(record, by_id) for record in self._open_batches()))
            done = self.journal.completed | self.attempted
            todo = [request for request in requests if request.id not in done]
            if not todo:
                return
            for batch_requests in self._split(todo):
                await self._send(batch_requests)

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

    async def _send(self, batch_requests: list[tuple[Request, InFlightRequest]]) -> None:
        """Uploads and creates a batch. Its name is journaled before, so that a kill in between loses nothing."""
        ids = [request.id for request, _ in batch_requests]
        num_earlier = sum(key.startswith(NOTE_PREFIX) for key in self.journal.notes)
        for request, in_flight in batch_requests:
            self.journal.record_sent(request.id, in_flight.max_billed)
        record = {"name": value_hash([num_earlier, ids])[:32], "ids": ids, "batch": None, "ended": False}
        self._save(record)
        await self._create(record, [request for request, _ in batch_requests])

    async def _create(self, record: Row, requests: list[Request]) -> Batch:
        batch = await self.endpoint.create(record["name"], b"".join(self._line(request) for request in requests))
        self._save(record | {"batch": batch.id})
        return batch

    def _save(self, record: Row) -> None:
        self.journal.note(NOTE_PREFIX + record["name"], record)

    async def _finish(self, record: Row, by_id: dict[str, Request]) -> None:
        """Waits for the end of a batch and journals its completions.

        A batch without a request of this run is only read if it has ended.
        """
        requests = [by_id[request_id] for request_id in record["ids"] if request_id in by_id]
        batch = await self._find(record, requests)
        if batch is not None and batch.status not in ENDED:
            if not requests:
                return
            batch = await self._wait(batch, len(record["ids"]))
        completions = {} if batch is None else await self._download(batch)
        self._journal(record["ids"], completions, by_id)
        self._save(record | {"batch": batch.id if batch is not None else None, "ended": True})
        if batch is not None and not completions and requests:
            raise UserError(
                f"a batch of teacher {self.teacher.name!r} ({self.teacher.base_url}) ended as {batch.status!r} without "
                f"a response: {self._reasons(batch.errors)}. All responses so far are kept; run again to send it again."
            )

    def _reasons(self, errors: Any) -> str:
        listed = errors.get("data") if isinstance(errors, dict) else None
        texts = [error_text(error, self.job.key) for error in listed] if isinstance(listed, list) else []
        return shown("; ".join(texts) or "no reason given", self.job.key)

    async def _wait(self, batch: Batch, num_requests: int) -> Batch:
        """Polls a batch until it has ended, with its progress on the bar."""
        pause, waited = FIRST_POLL_S, 0.0
        while batch.status not in ENDED:
            if waited > MAX_WAIT_S:
                raise UserError(
                    f"a batch of teacher {self.teacher.name!r} ({self.teacher.base_url}) must end within 24 hours, got "
                    f"status {batch.status!r} after {waited / 3600:.0f}. Run again to wait for it."
                )
            await asyncio.sleep(pause)
            waited += pause
            pause = min(MAX_POLL_S, pause * POLL_FACTOR)
            batch = await self.endpoint.retrieve(batch.id)
            counts = batch.request_counts if isinstance(batch.request_counts, dict) else {}
            progress = f"{shown(counts.get('completed', '?'), self.job.key, 20)} of {num_requests}"
            self.job.bar.set_postfix_str(f"batch {shown(batch.status, self.job.key)}, {progress}")
        return batch

    async def _download(self, batch: Batch) -> dict[str, Completion]:
        """The completions of an ended batch by request id."""
        completions: dict[str, Completion] = {}
        for file in (batch.output_file_id, batch.error_file_id):
            if file is not None:
                for line in (await self.endpoint.download(file)).splitlines():
                    completion = from_result_line(line, self.job.max_tokens, self.job.key)
                    if completion is not None:
                        max_billed = self.journal.in_flight.get(completion.id, NO_TOKENS)
                        billed = completion.billed or completion.usage or max_billed
                        completions[completion.id] = replace(completion, billed=billed)
        return completions

    def _journal(self, request_ids: list[str], completions: dict[str, Completion], by_id: dict[str, Request]) -> None:
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
            if completion.usage is not None and completion.id in by_id:
                self.scheduler.learn(self.scheduler.track(by_id[completion.id]).bounds, completion.usage)
        self.attempted |= completions.keys() & set(request_ids)

    async def _find(self, record: Row, requests: list[Request]) -> Batch | None:
        """The batch of a record. If a kill came before its id was journaled, it is found by its name.

        None if it was never created and has no request of this run; otherwise it is created now.
        """
        if record["batch"] is not None:
            return await self.endpoint.retrieve(record["batch"])
        batch = await self.endpoint.find(record["name"])
        if batch is not None:
            self._save(record | {"batch": batch.id})
            return batch
        return await self._create(record, requests) if requests else None
