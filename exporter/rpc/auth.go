package rpc

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// PassphraseKey is the metadata key that carries the passphrase with every RPC.
const PassphraseKey = "x-jumpstarter-passphrase"

// RequirePassphrase makes a server refuse every RPC that does not carry the
// passphrase, before anything is looked up. The log says so without the value, at
// once for the first refusal of an address, and then how many there were, every ten
// seconds as long as there are any. Guessing is not slowed down, as whoever
// guesses has many connections: a passphrase has to be long enough.
func RequirePassphrase(passphrase string, log *slog.Logger) []grpc.ServerOption {
	refused := refusals{log: log, peers: map[string]int{}}
	want := sha256.Sum256([]byte(passphrase)) // equal lengths: the comparison tells nothing
	check := func(ctx context.Context, method string) error {
		md, _ := metadata.FromIncomingContext(ctx)
		if got := md.Get(PassphraseKey); len(got) > 0 {
			sum := sha256.Sum256([]byte(got[len(got)-1]))
			if subtle.ConstantTimeCompare(sum[:], want[:]) == 1 {
				return nil
			}
		}
		refused.add(ctx, method)
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

// Limits of what strangers can make the log say.
const (
	refusalsEach = 10 * time.Second // for an address, after the first refusal
	refusalPeers = 16               // addresses at a time; all others count as one
	refusalName  = 100              // bytes of the name of a method, which is theirs to choose
)

// refusals tells the log who was refused.
type refusals struct {
	log *slog.Logger

	mu    sync.Mutex
	peers map[string]int // refusals that the log does not know of
}

const refusal = "authentication failed: invalid or missing passphrase"

func (r *refusals) add(ctx context.Context, method string) {
	who := address(ctx)
	r.mu.Lock()
	n, known := r.peers[who]
	if !known && len(r.peers) >= refusalPeers {
		who = "others"
		n, known = r.peers[who]
	}
	if known {
		r.peers[who] = n + 1
		r.mu.Unlock()
		return
	}
	r.peers[who] = 0
	r.mu.Unlock()
	r.log.Warn(refusal, "peer", who, "method", method[:min(len(method), refusalName)])
	time.AfterFunc(refusalsEach, func() { r.tell(who) })
}

// tell tells how many more there were of an address, and forgets it when there were
// none.
func (r *refusals) tell(who string) {
	r.mu.Lock()
	n := r.peers[who]
	r.peers[who] = 0
	if n == 0 {
		delete(r.peers, who)
	}
	r.mu.Unlock()
	if n > 0 {
		r.log.Warn(refusal, "peer", who, "times", n, "within", refusalsEach.String())
		time.AfterFunc(refusalsEach, func() { r.tell(who) })
	}
}

// address is the machine that a call comes from.
func address(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return "unknown"
	}
	if host, _, err := net.SplitHostPort(p.Addr.String()); err == nil {
		return host
	}
	return p.Addr.Network()
}
