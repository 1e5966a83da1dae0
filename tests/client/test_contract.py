"""protos/: the wire contract against its committed baseline: additions pass, breaking changes do not."""

from __future__ import annotations


def test_published_enums_start_unspecified_and_services_are_listed() -> None:
    from hart.v1 import (
        ar_generator_pb2,
        decoder_pb2,
        images_pb2,
        safety_pb2,
        stage_pb2,
        tensor_pb2,
        text_encoder_pb2,
    )

    files = [ar_generator_pb2, decoder_pb2, images_pb2, safety_pb2, stage_pb2, tensor_pb2, text_encoder_pb2]
    for file in files:
        for enum in file.DESCRIPTOR.enum_types_by_name.values():
            assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")
    services = {name for file in files for name in file.DESCRIPTOR.services_by_name}
    assert services == {"Images", "Stage", "Safety", "TextEncoder", "ArGenerator", "Decoder"}


def test_keda_scaler_contract_has_the_published_field_numbers() -> None:
    from gateway.keda import externalscaler_pb2

    file = externalscaler_pb2.DESCRIPTOR
    assert file.package == "externalscaler"
    service = file.services_by_name["ExternalScaler"]
    assert [method.name for method in service.methods] == ["IsActive", "StreamIsActive", "GetMetricSpec", "GetMetrics"]
    assert service.methods_by_name["StreamIsActive"].server_streaming
    numbers = {
        name: {field.name: field.number for field in message.fields}
        for name, message in file.message_types_by_name.items()
    }
    assert numbers["ScaledObjectRef"] == {"name": 1, "namespace": 2, "scalerMetadata": 3}
    assert numbers["MetricSpec"] == {"metricName": 1, "targetSize": 2, "targetSizeFloat": 3}
    assert numbers["MetricValue"] == {"metricName": 1, "metricValue": 2, "metricValueFloat": 3}
