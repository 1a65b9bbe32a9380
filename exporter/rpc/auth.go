package rpc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// PassphraseKey is the metadata key that carries the passphrase with every RPC.
const PassphraseKey = "x-jumpstarter-passphrase"

// RequirePassphrase makes a server refuse every RPC that does not carry the
// passphrase, before anything is looked up. The log says so without the value.
func RequirePassphrase(passphrase string, log *slog.Logger) []grpc.ServerOption {
	want := sha256.Sum256([]byte(passphrase)) // equal lengths: the comparison tells nothing
	check := func(ctx context.Context, method string) error {
		md, _ := metadata.FromIncomingContext(ctx)
		if got := md.Get(PassphraseKey); len(got) > 0 {
			sum := sha256.Sum256([]byte(got[len(got)-1]))
			if subtle.ConstantTimeCompare(sum[:], want[:]) == 1 {
				return nil
			}
		}
		log.Warn("authentication failed: invalid or missing passphrase", "method", method)
		return status.Error(codes.Unauthenticated, "invalid or missing passphrase")
	}
	return []grpc.ServerOption{
		// without it, methods that do not exist would be told apart before the check
		grpc.UnknownServiceHandler(func(_ any, ss grpc.ServerStream) error {
			method, _ := grpc.MethodFromServerStream(ss)
			return status.Errorf(codes.Unimplemented, "unknown method %s", method)
		}),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if err := check(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return h(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if err := check(ss.Context(), info.FullMethod); err != nil {
				return err
			}
			return h(srv, ss)
		}),
	}
}
