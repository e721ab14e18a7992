"""A local application in Python: streams an answer from the agent on this device, from the published .proto alone.

    pip install grpcio grpcio-tools
    python examples/python/ask.py .data/agent/agent.sock "Freezer room to -22 please"
"""

import pathlib
import sys

import grpc

sys.path.insert(0, str(pathlib.Path(__file__).parents[2] / "libs/protocol/proto"))
messages, services = grpc.protos_and_services("matfleet/inference/v1/inference.proto")


def main(socket: str, prompt: str) -> None:
    target = socket if ":" in socket else f"unix:{pathlib.Path(socket).resolve()}"
    with grpc.insecure_channel(target) as channel:
        agent = services.InferenceServiceStub(channel)
        request = messages.GenerateRequest(
            messages=[messages.Message(role=messages.ROLE_USER, parts=[messages.Part(text=prompt)])],
            max_tokens=64,
        )
        answer = agent.Generate(request, timeout=10)
        for response in answer:
            if response.HasField("delta"):
                print(response.delta.text, end="", flush=True)
        told = {key: value for key, value in answer.trailing_metadata() if key.startswith("x-matfleet-")}
        print(f"\n({told['x-matfleet-device']}, slice {told['x-matfleet-slice']}, first token after {told['x-matfleet-ttft-ms']} ms)")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
