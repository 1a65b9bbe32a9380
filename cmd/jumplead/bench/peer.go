package main

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
)

// peer is the TCP service at the far end of every tunnel. A connection starts
// with a letter and a count: U takes that many bytes and answers one; D sends
// them, in chunks of the size that follows.
type peer struct {
	ln net.Listener
	wg sync.WaitGroup
}

func newPeer() (*peer, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &peer{ln: ln}
	p.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	})
	return p, nil
}

func (p *peer) close() {
	p.ln.Close()
	p.wg.Wait()
}

func (p *peer) addr() (host string, port int) {
	a := p.ln.Addr().(*net.TCPAddr)
	return a.IP.String(), a.Port
}

func serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReaderSize(c, 256<<10)
	for {
		op, err := r.ReadByte()
		if err != nil {
			return
		}
		n, err := number(r)
		if err != nil {
			return
		}
		switch op {
		case 'U':
			if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
				return
			}
			if _, err := c.Write([]byte{1}); err != nil {
				return
			}
		case 'D':
			chunk, err := number(r)
			if err != nil {
				return
			}
			buf := make([]byte, chunk)
			for n > 0 {
				m, err := c.Write(buf[:min(n, chunk)])
				if err != nil {
					return
				}
				n -= uint64(m)
			}
		default:
			return
		}
	}
}

func number(r io.Reader) (uint64, error) {
	var b [8]byte
	_, err := io.ReadFull(r, b[:])
	return binary.BigEndian.Uint64(b[:]), err
}
