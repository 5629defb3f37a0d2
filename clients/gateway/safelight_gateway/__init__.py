"""HTTP gateway of Safelight: text-to-image APIs of other providers over the gRPC service."""
