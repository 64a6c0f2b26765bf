package pgtest

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// Proxy is a way to a server that can be cut. Its methods may be called concurrently.
type Proxy struct {
	server string
	listen net.Listener

	mu    sync.Mutex
	links map[*link]bool
	at    []byte // where to cut
	pass  bool
	cuts  int
	down  bool
}

// link is one connection through the proxy.
type link struct {
	client, server net.Conn
	muted          atomic.Bool   // the server's answers are dropped
	answered       chan struct{} // closed when the server has closed
}

// NewProxy makes a proxy to a server. It ends with the test.
func NewProxy(t testing.TB, s *Server) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{server: s.Address(), listen: l, links: make(map[*link]bool)}
	var serving sync.WaitGroup
	serving.Go(func() { p.serve(&serving) })
	t.Cleanup(func() {
		_ = l.Close()
		p.Disconnect()
		serving.Wait()
	})
	return p
}

// URL leads through the proxy where a URL leads to the server.
func (p *Proxy) URL(url string) string {
	return strings.Replace(url, p.server, p.listen.Addr().String(), 1)
}

// Cut cuts the next connection whose client sends a text, such as "commit". If pass is true, the server gets it and answers, and only
// the answer is lost. Otherwise the server never gets it.
func (p *Proxy) Cut(at string, pass bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.pass = []byte(at), pass
}

// Cuts is how many connections were cut since the start.
func (p *Proxy) Cuts() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cuts
}

// Disconnect cuts all connections. New ones are accepted.
func (p *Proxy) Disconnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		_, _ = l.client.Close(), l.server.Close()
	}
}

// SetDown makes the proxy close new connections at once, or accept them again.
func (p *Proxy) SetDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

func (p *Proxy) serve(serving *sync.WaitGroup) {
	for {
		client, err := p.listen.Accept()
		if err != nil {
			return
		}
		l, err := p.connect(client)
		if err != nil {
			_ = client.Close()
			continue
		}
		serving.Go(func() { p.toServer(l) })
		serving.Go(l.toClient)
	}
}

func (p *Proxy) connect(client net.Conn) (*link, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return nil, net.ErrClosed
	}
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return nil, err
	}
	l := &link{client: client, server: server, answered: make(chan struct{})}
	p.links[l] = true
	return l, nil
}

// toServer passes on what the client sends, until the connection is to be cut.
func (p *Proxy) toServer(l *link) {
	defer func() {
		_, _ = l.client.Close(), l.server.Close()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.links, l)
	}()
	for buf := make([]byte, 64<<10); ; {
		n, err := l.client.Read(buf)
		cut, pass := p.cutsAt(buf[:n])
		switch {
		case cut && pass:
			l.muted.Store(true)
			_, _ = l.server.Write(buf[:n])
			_ = l.server.(*net.TCPConn).CloseWrite() // the server closes when it has done what it was sent
			<-l.answered
			return
		case cut:
			return
		}
		if _, failed := l.server.Write(buf[:n]); err != nil || failed != nil {
			return
		}
	}
}

func (l *link) toClient() {
	defer close(l.answered)
	for buf := make([]byte, 64<<10); ; {
		n, err := l.server.Read(buf)
		if !l.muted.Load() {
			if _, failed := l.client.Write(buf[:n]); failed != nil || err != nil {
				_ = l.client.Close()
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// cutsAt reports whether a connection is cut at what its client sent.
func (p *Proxy) cutsAt(sent []byte) (cut, pass bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.at == nil || !bytes.Contains(sent, p.at) {
		return false, false
	}
	p.at = nil
	p.cuts++
	return true, p.pass
}
