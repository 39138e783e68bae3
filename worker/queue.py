"""The Celery queue. A message is only a wake-up: it names a job, but the worker that gets it takes
the most urgent waiting job. The record is the truth: the reaper repeats a lost message, and a
second message is harmless.

Each kind of job has a queue of its own, so that images need not wait for a training of hours. Light
enough for the API to import: it submits by task name and never loads torch.
"""

from celery import Celery
from celery.exceptions import CeleryError
from kombu.exceptions import KombuError
from redis.exceptions import RedisError

from store.jobs.kinds import JOB_KINDS, Kind
from store.locations import for_kombu

RUN_JOB = "worker.run_job"
CONNECT_SECONDS = 2.0
BROKER_ERRORS = (OSError, CeleryError, KombuError, RedisError)


def make_queue(redis_url: str) -> Celery:
    queue = Celery("diffusion", broker=for_kombu(redis_url))
    queue.conf.update(
        task_default_queue=JOB_KINDS["train"].queue,
        task_acks_late=False,  # late acknowledgements are redelivered after a blip, and run twice
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,  # else a job waits behind a long one beside an idle worker
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_connection_timeout=CONNECT_SECONDS,
        broker_transport_options={
            "visibility_timeout": 120,
            "socket_timeout": 10,
            "socket_connect_timeout": CONNECT_SECONDS,
            "health_check_interval": 25,
            "max_retries": 0,
        },
    )
    return queue


def submit(queue: Celery, job_id: str, kind: Kind) -> bool:
    """Wake a worker for this job; return False where the broker cannot be reached just now."""
    try:
        with queue.connection_for_write() as connection:
            connection.ensure_connection(max_retries=0, timeout=CONNECT_SECONDS)
            queue.send_task(
                RUN_JOB,
                args=[job_id, kind],
                queue=JOB_KINDS[kind].queue,
                connection=connection,
                retry=False,
            )
    except BROKER_ERRORS:
        return False
    return True


def num_waiting(queue: Celery, kind: Kind) -> int | None:
    """Return how many messages no worker has taken yet, None where the broker cannot be reached
    just now."""
    try:
        with queue.connection_for_read() as connection:
            connection.ensure_connection(max_retries=0, timeout=CONNECT_SECONDS)
            declared = connection.default_channel.queue_declare(queue=JOB_KINDS[kind].queue)
            return int(declared.message_count)
    except BROKER_ERRORS:
        return None
