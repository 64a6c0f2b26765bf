package apitest

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is a DNS server that knows one name, as that of a headless Service.
type zone struct {
	name string
	conn *net.UDPConn

	mu    sync.Mutex
	addrs []netip.Addr
}

func startZone(t *testing.T, name string) *zone {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	z := &zone{name: name + ".", conn: conn}
	var serving sync.WaitGroup
	serving.Go(z.serve)
	t.Cleanup(func() {
		_ = conn.Close()
		serving.Wait()
	})
	return z
}

func (z *zone) port() int { return z.conn.LocalAddr().(*net.UDPAddr).Port }

func (z *zone) add(a netip.Addr) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs = append(z.addrs, a)
}

func (z *zone) remove(a netip.Addr) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.addrs = slices.DeleteFunc(z.addrs, func(b netip.Addr) bool { return a == b })
}

// serve answers until the connection is closed.
func (z *zone) serve() {
	for buf := make([]byte, 1500); ; {
		n, from, err := z.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if reply := z.answer(buf[:n]); reply != nil {
			_, _ = z.conn.WriteToUDPAddrPort(reply, from)
		}
	}
}

func (z *zone) answer(query []byte) []byte {
	var p dnsmessage.Parser
	h, err := p.Start(query)
	if err != nil {
		return nil
	}
	q, err := p.Question()
	if err != nil {
		return nil
	}
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: h.ID, Response: true, Authoritative: true}, Questions: []dnsmessage.Question{q}}
	if q.Name.String() != z.name {
		m.RCode = dnsmessage.RCodeNameError
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, a := range z.addrs {
		if m.RCode == dnsmessage.RCodeSuccess && q.Type == dnsmessage.TypeA {
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 5},
				Body:   &dnsmessage.AResource{A: a.As4()},
			})
		}
	}
	reply, err := m.Pack()
	if err != nil {
		return nil
	}
	return reply
}
