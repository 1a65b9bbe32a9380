package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/jumplead/jumplead/drivers/cli"
	"github.com/jumplead/jumplead/drivers/driver"
	"github.com/spf13/cobra"
)

// CoreFlasherClient is the client class of flashers that upstream's core brings
// along.
const CoreFlasherClient = "jumpstarter.client.flasher.FlasherClient"

// MuxCommand makes the commands of a mux.
func MuxCommand(n *cli.Node) *cobra.Command {
	return n.Group("Storage operations", muxCommands(n)...)
}

// FlasherCommand makes the commands of a flasher.
func FlasherCommand(n *cli.Node) *cobra.Command {
	f := NewFlasherClient(n.Caller)
	return n.Group(flasherHelp, flasherCommands(f, &f.Transfer)...)
}

// MuxFlasherCommand makes the commands of a mux whose client flashes.
func MuxFlasherCommand(n *cli.Node) *cobra.Command {
	m := NewMuxClient(n.Caller)
	return n.Group(flasherHelp, append(flasherCommands(MuxFlasher{m}, &m.Transfer), muxCommands(n)...)...)
}

const flasherHelp = "Generic flasher interface"

func muxCommands(n *cli.Node) []*cobra.Command {
	m := NewMuxClient(n.Caller)
	side := func(name, help string, f func(context.Context) error) *cobra.Command {
		return &cobra.Command{Use: name, Long: help, RunE: func(c *cobra.Command, _ []string) error { return f(c.Context()) }}
	}
	return []*cobra.Command{
		side("host", "Connect storage to host", m.Host),
		side("dut", "Connect storage to DUT", m.DUT),
		side("off", "Disconnect storage", m.Off),
		{Use: "write-local-file FILE", Long: "Write a file to storage that is connected to host", RunE: func(c *cobra.Command, args []string) error {
			return fromFile(args[0], func(src io.Reader) error {
				return watch(c, "write", &m.Transfer, func() error { return m.Write(c.Context(), src) })
			})
		}},
	}
}

// flasherCommands makes the commands of a flasher whose client moves data as the
// transfer says.
func flasherCommands(f Flasher, t *driver.Transfer) []*cobra.Command {
	var targets []string
	var target string
	flash := &cobra.Command{Use: "flash [FILE]...", Long: "Flash an image: a file, or a URL that the exporter fetches"}
	flash.RunE = func(c *cobra.Command, files []string) error {
		one := func(file, partition string) error {
			return fromFile(file, func(src io.Reader) error {
				return watch(c, "flash", t, func() error { return f.Flash(c.Context(), src, partition) })
			})
		}
		if len(targets) == 0 {
			if len(files) == 0 {
				return errors.New("FILE argument is required unless --target/-t is used")
			}
			return one(files[0], "") // more are ignored, as by the Python client
		}
		type job struct{ partition, file string }
		var jobs []job
		for _, t := range targets {
			partition, file, ok := strings.Cut(t, ":")
			if !ok {
				return fmt.Errorf("Invalid target spec '%s', expected name:file", t)
			}
			jobs = append(jobs, job{partition, file})
		}
		for _, j := range jobs {
			if err := one(j.file, j.partition); err != nil {
				return fmt.Errorf("%s: %w", j.partition, err)
			}
		}
		return nil
	}
	flash.Flags().StringArrayVarP(&targets, "target", "t", nil, "PARTITION:FILE; may be given several times")
	encoding(flash, t, "How the file is compressed; the exporter unpacks it")
	dump := &cobra.Command{Use: "dump FILE", Long: "Dump image from DUT to file"}
	dump.RunE = func(c *cobra.Command, files []string) error {
		return toFile(c.Context(), files[0], func(dst io.Writer) error {
			return watch(c, "dump", t, func() error { return f.Dump(c.Context(), dst, target) })
		})
	}
	dump.Flags().StringVar(&target, "target", "", "Partition to dump")
	encoding(dump, t, "How the file is to be compressed; the exporter packs it")
	return []*cobra.Command{flash, dump}
}

func encoding(c *cobra.Command, t *driver.Transfer, help string) {
	c.Flags().Var(cli.Choice{Value: &t.Encoding, Words: []string{"gzip", "xz", "bz2", "zstd"}, Fold: true}, "compression", help)
}

// watch shows the progress of a transfer.
func watch(c *cobra.Command, label string, t *driver.Transfer, f func() error) error {
	p := cli.StartProgress(c, label)
	defer p.Stop()
	t.Progress = p.Set
	return f()
}

func isURL(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// fromFile opens a file, or names a URL, that f is to send.
func fromFile(name string, f func(io.Reader) error) error {
	if isURL(name) {
		return f(driver.PresignedRequest{URL: name})
	}
	src, err := os.Open(name)
	if err != nil {
		return err
	}
	defer src.Close()
	if info, err := src.Stat(); err == nil && info.IsDir() {
		return fmt.Errorf("%s is a directory", name)
	}
	return f(src)
}

// toFile makes a file, or names a URL, that f is to fill.
func toFile(ctx context.Context, name string, f func(io.Writer) error) error {
	if isURL(name) {
		return f(driver.PresignedRequest{URL: name})
	}
	return create(ctx, name, f)
}

// create lets f write a file, which gets its name when it is whole. What is no
// regular file, a device or a pipe, is written as it is.
func create(ctx context.Context, name string, f func(io.Writer) error) error {
	if real, err := filepath.EvalSymlinks(name); err == nil {
		name = real
	}
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		w, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		err = f(w)
		if cerr := w.Close(); err == nil {
			err = cerr
		}
		return err
	}
	dir, base := filepath.Split(name)
	root, err := os.OpenRoot(filepath.Clean(dir))
	if err != nil {
		return err
	}
	defer root.Close()
	p, err := NewPartial(root, base)
	if err != nil {
		return err
	}
	if err := f(p); err != nil {
		return errors.Join(err, p.Discard())
	}
	if err := p.Commit(ctx); err != nil {
		return errors.Join(err, p.Discard())
	}
	return nil
}

// OpendalCommand makes the commands of a folder.
func OpendalCommand(n *cli.Node) *cobra.Command {
	o := NewOpendalClient(n.Caller)
	run := func(use, help string, f func(c *cobra.Command, args []string) error) *cobra.Command {
		return &cobra.Command{Use: use, Long: help, RunE: f}
	}
	ask := func(use, help string, f func(ctx context.Context, path string) (any, error)) *cobra.Command {
		return run(use, help, func(c *cobra.Command, args []string) error {
			v, err := f(c.Context(), append(args, "")[0])
			if err != nil {
				return err
			}
			return n.Session.PrintJSON(c, v)
		})
	}
	hash := ""
	digest := run("hash PATH", "Compute the digest of a file", func(c *cobra.Command, args []string) error {
		algo := SHA256
		if hash != "" {
			algo = Algo(hash)
		}
		sum, err := o.Hash(c.Context(), args[0], algo)
		if err != nil {
			return err
		}
		return n.Session.Print(c, sum, "%s", sum)
	})
	digest.Flags().Var(cli.Choice{Value: &hash, Words: []string{string(MD5), string(SHA256)}}, "algo", "Hash function; sha256 when it is left out")
	presign := func(use, help string, f func(context.Context, string, int) (PresignedRequest, error)) *cobra.Command {
		seconds := 0
		c := run(use+" PATH", help, func(c *cobra.Command, args []string) error {
			if !c.Flags().Changed("expire-second") {
				return cli.Usage(c, "Missing option '--expire-second'.")
			}
			r, err := f(c.Context(), args[0], seconds)
			if err != nil {
				return err
			}
			return n.Session.PrintJSON(c, r)
		})
		c.Flags().IntVar(&seconds, "expire-second", 0, "How long the request is good for (required)")
		c.Flags().Lookup("expire-second").DefValue = ""
		return c
	}
	each := func(name, help string, scan bool) *cobra.Command {
		return run(name+" PATH", help, func(c *cobra.Command, args []string) error {
			entries := o.List
			if scan {
				entries = o.Scan
			}
			for entry, err := range entries(c.Context(), args[0]) {
				if err == nil {
					err = n.Session.Print(c, entry, "%s", entry)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return n.Group("Opendal storage",
		run("write-bytes PATH", "Write standard input to a file", func(c *cobra.Command, args []string) error {
			return o.WriteFile(c.Context(), args[0], c.InOrStdin())
		}),
		run("read-bytes PATH", "Write a file to standard output", func(c *cobra.Command, args []string) error {
			return o.ReadFile(c.Context(), args[0], c.OutOrStdout())
		}),
		run("write-from-path DST SRC", "Write a local file, or what a URL yields, to a file", func(c *cobra.Command, args []string) error {
			return fromFile(args[1], func(src io.Reader) error {
				return watch(c, "write", &o.Transfer, func() error { return o.WriteFile(c.Context(), args[0], src) })
			})
		}),
		run("read-into-path SRC DST", "Write a file to a local file", func(c *cobra.Command, args []string) error {
			return toFile(c.Context(), args[1], func(dst io.Writer) error {
				return watch(c, "read", &o.Transfer, func() error { return o.ReadFile(c.Context(), args[0], dst) })
			})
		}),
		ask("stat PATH", "Tell size and kind", func(ctx context.Context, path string) (any, error) {
			m, err := o.Stat(ctx, path)
			return printable(m), err
		}),
		digest,
		run("copy SOURCE TARGET", "Copy a file", func(c *cobra.Command, args []string) error { return o.Copy(c.Context(), args[0], args[1]) }),
		run("rename SOURCE TARGET", "Rename a file or a directory", func(c *cobra.Command, args []string) error { return o.Rename(c.Context(), args[0], args[1]) }),
		run("remove-all PATH", "Remove a file, or a directory and all below it", func(c *cobra.Command, args []string) error { return o.RemoveAll(c.Context(), args[0]) }),
		run("create-dir PATH", "Make a directory; PATH ends with a slash", func(c *cobra.Command, args []string) error { return o.CreateDir(c.Context(), args[0]) }),
		run("delete PATH", "Remove a file or an empty directory", func(c *cobra.Command, args []string) error { return o.Delete(c.Context(), args[0]) }),
		run("exists PATH", "Succeed if there is something", func(c *cobra.Command, args []string) error {
			ok, err := o.Exists(c.Context(), args[0])
			if err == nil && !ok {
				err = fmt.Errorf("path %s does not exist", args[0])
			}
			return err
		}),
		each("list", "List a directory", false),
		each("scan", "List a directory and all below it", true),
		presign("presign-stat", "Presign a HEAD request", o.PresignStat),
		presign("presign-read", "Presign a GET request", o.PresignRead),
		presign("presign-write", "Presign a PUT request", o.PresignWrite),
		ask("capability", "Tell what the storage can do", func(ctx context.Context, _ string) (any, error) { return o.Capability(ctx) }),
	)
}

// printable is metadata as upstream's client prints it, which is not as it
// travels.
func printable(m Metadata) any {
	type mode struct {
		IsFile bool `json:"is_file"`
		IsDir  bool `json:"is_dir"`
	}
	return struct {
		ContentDisposition *string `json:"content_disposition"`
		ContentLength      int64   `json:"content_length"`
		ContentMD5         *string `json:"content_md5"`
		ContentType        *string `json:"content_type"`
		ETag               *string `json:"etag"`
		Mode               mode    `json:"mode"`
	}{m.ContentDisposition, m.ContentLength, m.ContentMD5, m.ContentType, m.ETag, mode(m.Mode)}
}
