package transfer_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/jumplead/jumplead/drivers/driver/drivertest"
	"github.com/jumplead/jumplead/exporter/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// TestDamagedNetwork is a matrix of networks that fail in the middle of a
// transfer. Each cell has a network of its own, and goes on with it when it works
// again.
func TestDamagedNetwork(t *testing.T) {
	drivertest.NoLeaks(t)
	b := openBench(t)
	https := httptest.NewTLSServer(nil) // for its certificate
	roots := x509.NewCertPool()
	roots.AddCert(https.Certificate())
	serverTLS, clientTLS := &tls.Config{Certificates: https.TLS.Certificates}, &tls.Config{RootCAs: roots}
	https.Close()
	plain, secret := b.listen(t), b.listen(t, grpc.Creds(credentials.NewTLS(serverTLS)))
	g := newGrid(t, b)

	lost := kind{"", false, gone}
	kinds := map[string]kind{cut: lost, reset: lost, half: lost, flip: lost, stuck: {"", false, late}}
	for _, e := range encodings {
		tr := driver.Transfer{Encoding: e}
		content := random(g.rand, 100<<10)
		packed := pack(t, e, content)
		for _, do := range []string{cut, reset, half, stuck, flip} {
			for _, write := range []bool{true, false} {
				for _, up := range []bool{true, false} {
					k := kinds[do]
					k.name = do
					most := len(packed) // of what certainly goes in the direction
					if write != up {
						// calls and answers, the last of them after all data
						most = 40
					}
					at := g.rand.IntN(most)
					to, config := plain, (*tls.Config)(nil)
					if do == flip { // without TLS nobody could tell
						to, config = secret, clientTLS
					}
					var net *proxy
					connect := func() (*client.Client, func()) {
						net = newProxy(t, to)
						return dial(t, net.addr(), config), net.release
					}
					where := fmt.Sprintf("%s at %d, towards the client", name(e), at)
					if up {
						where = fmt.Sprintf("%s at %d, towards the exporter", name(e), at)
					}
					transfer := func(ctx context.Context, n *proxy, move func(context.Context) error) error {
						ctx, cancel := context.WithTimeout(ctx, patience/2)
						defer cancel()
						if do == stuck {
							ctx, cancel = context.WithTimeout(ctx, stall)
							defer cancel()
							// later, so that the tidying up comes to an end
							defer time.AfterFunc(2*stall, n.release).Stop()
						}
						n.strike(fault{up, at, do})
						return move(ctx)
					}
					if write {
						g.write(k, "write, "+where, connect, content, func(ctx context.Context, p place) error {
							return transfer(ctx, net, func(ctx context.Context) error { return p.write(ctx, tr, bytes.NewReader(packed)) })
						})
					} else {
						g.read(k, "read, "+where, e, connect, content, func(ctx context.Context, p place, w io.Writer) error {
							return transfer(ctx, net, func(ctx context.Context) error { return p.read(ctx, tr, w) })
						})
					}
				}
			}
		}
	}
	g.all()
}
