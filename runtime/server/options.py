"""gRPC options of every server in the cluster."""

from __future__ import annotations

import grpc

from runtime.settings import ProcessSettings

PING_SECONDS, PING_JITTER_MS = 5, 500
"""Min interval of clients' keepalive pings, with and without calls in flight, and its tolerance for clock and network
jitter."""
MAX_PENDING = 4
"""Calls that may wait for the event loop, in multiples of the calls that may run. By default gRPC cancels some of the
new calls where 1,000 wait, and all where 3,000 do: clients would take CANCELLED for their own doing. The interceptor
refuses calls above the limits with a status that says so."""


def server_options(settings: ProcessSettings) -> list[tuple[str, int]]:
    """gRPC options of every server in the cluster."""
    return [
        ("grpc.so_reuseport", 0),  # a second process on the same port must fail instead of sharing it
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", -1),
        # Compressed requests are refused unread: 61 KB may inflate to 60 MiB, and requests are too small to benefit.
        ("grpc.compression_enabled_algorithms_bitset", 1 << grpc.Compression.NoCompression),
        ("grpc.max_metadata_size", settings.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", settings.max_metadata_bytes),
        ("grpc.max_concurrent_streams", settings.max_concurrent_streams),
        ("grpc.server.max_pending_requests", MAX_PENDING * settings.max_concurrent_calls),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING * settings.max_concurrent_calls),
        ("grpc.max_connection_age_ms", int(settings.connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.connection_age_grace_seconds * 1000)),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", PING_SECONDS * 1000 - PING_JITTER_MS),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.server_handshake_timeout_ms", 10_000),
    ]
