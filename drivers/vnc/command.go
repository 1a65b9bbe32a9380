package vnc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"
	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/network"
	"github.com/spf13/cobra"
)

// Command makes the commands of a screen.
//
// The browser loads noVNC, a VNC client, from its project's site, and that
// connects over a WebSocket to a port of the loopback on which the command
// forwards to the VNC server.
func Command(n *cli.Node) *cobra.Command {
	var noBrowser, encrypt, noEncrypt bool
	session := &cobra.Command{Use: "session", Long: "Show the screen in a web browser until Ctrl+C", RunE: func(c *cobra.Command, _ []string) error {
		service, err := n.Child(Service)
		if err != nil {
			return err
		}
		if !encrypt && !noEncrypt {
			if encrypt, err = NewClient(n.Caller).DefaultEncrypt(c.Context()); err != nil {
				return err
			}
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		at := page(ln.Addr().(*net.TCPAddr), encrypt && !noEncrypt)
		out := c.OutOrStdout()
		if n.Session.JSON {
			out = c.ErrOrStderr()
			if err := n.Session.Print(c, map[string]string{"url": at}, ""); err != nil {
				return err
			}
		}
		fmt.Fprintf(out, "To connect, please visit: %s\n", at)
		if !noBrowser {
			if err := open(c.Context(), at); err != nil {
				n.Session.Log.Warn("no browser was opened", "error", err)
			}
		}
		fmt.Fprintln(out, "Press Ctrl+C to close the VNC session.")
		err = serve(c.Context(), ln, network.NewClient(service.Caller), n.Session.Log)
		if c.Context().Err() != nil {
			fmt.Fprintln(out, "\nClosing VNC session.")
			return c.Context().Err()
		}
		return err
	}}
	session.Flags().Bool("browser", true, "Open the page in a web browser (the default)")
	session.Flags().BoolVar(&noBrowser, "no-browser", false, "Only tell where the page is")
	session.Flags().BoolVar(&encrypt, "encrypt", false, "Have the browser's connection encrypted, whatever the driver's default")
	session.Flags().BoolVar(&noEncrypt, "no-encrypt", false, "Have it in plaintext, whatever the driver's default")
	return n.Group("Show the screen of the device", session)
}

// site is where noVNC is loaded from.
const site = "novnc.com"

func page(at *net.TCPAddr, encrypt bool) string {
	on := "0"
	if encrypt {
		on = "1"
	}
	u := url.URL{Scheme: "https", Host: site, Path: "/noVNC/vnc.html",
		RawQuery: "encrypt=" + on + "&autoconnect=1&reconnect=1&host=" + at.IP.String() + "&port=" + strconv.Itoa(at.Port)}
	return u.String()
}

// open opens a page in the user's browser.
func open(ctx context.Context, page string) error {
	argv := []string{"xdg-open", page}
	switch runtime.GOOS {
	case "darwin":
		argv = []string{"open", page}
	case "windows":
		argv = []string{"rundll32", "url.dll,FileProtocolHandler", page}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second) // it hands over to the browser
	defer cancel()
	return exec.CommandContext(ctx, argv[0], argv[1:]...).Run()
}

// serve forwards the WebSocket connections to a listener to a service until the
// context is done. A browser tells which page wants to connect, and lets any: only
// noVNC's and those of this machine may, as whoever connects has keyboard and
// mouse of the DUT.
func serve(ctx context.Context, ln net.Listener, s network.Interface, log *slog.Logger) error {
	var connections sync.WaitGroup
	defer connections.Wait()
	srv := &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			connections.Add(1)
			defer connections.Done()
			c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
				Subprotocols: []string{"binary"}, OriginPatterns: []string{site, "localhost:*", "127.0.0.1:*", "localhost", "127.0.0.1"},
			})
			if err != nil {
				log.Warn("no WebSocket connection", "client", r.RemoteAddr, "error", err)
				return
			}
			defer c.CloseNow()
			c.SetReadLimit(-1)
			if err := network.Join(ctx, websocket.NetConn(ctx, c, websocket.MessageBinary), s); err != nil && ctx.Err() == nil {
				log.Warn("VNC connection broke off", "client", r.RemoteAddr, "error", err)
			}
		}),
	}
	stopped := context.AfterFunc(ctx, func() { srv.Close() })
	defer stopped()
	err := srv.Serve(ln)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
