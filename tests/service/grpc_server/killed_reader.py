"""Client that reads a long generation until it is killed; its argument is the target."""

import sys

import grpc
from safelight.v1 import text_to_image_pb2_grpc as pb_grpc

from support.unharmed import LONG

with grpc.insecure_channel(sys.argv[1]) as channel:
    for response in pb_grpc.TextToImageServiceStub(channel).Generate(LONG):
        print(response.event.WhichOneof("kind"), flush=True)
