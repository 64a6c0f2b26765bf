package token

import (
	"net/netip"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	// refusalWindow is the time over which refusals are counted. A client that repeats one bad token counts once in a
	// negative_ttl.
	refusalWindow = time.Minute
	// maxPeers is how many peers are tracked.
	maxPeers = 20_000
)

// peers counts bad tokens by peer, so that a peer cannot flood the introspection server with invented tokens.
type peers struct {
	limit int // refusals in a window; 0: any number
	seen  *otter.Cache[netip.Prefix, *peer]
}

type peer struct {
	mu     sync.Mutex
	began  time.Time // when the window began
	count  int
	paused time.Time // until this time the server wants no calls for it
}

func newPeers(most int) *peers {
	return &peers{limit: most, seen: otter.Must(&otter.Options[netip.Prefix, *peer]{
		MaximumSize: maxPeers, ExpiryCalculator: otter.ExpiryAccessing[netip.Prefix, *peer](2 * refusalWindow),
	})}
}

func (p *peers) close() { p.seen.StopAllGoroutines() }

// networkOf returns the network that counts as one peer: an IPv4 address, or the /64 of an IPv6 address, because one customer
// usually has a whole /64.
func networkOf(address string) (netip.Prefix, bool) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, false
	}
	a = a.Unmap().WithZone("")
	bits := 32
	if a.Is6() {
		bits = 64
	}
	network, err := a.Prefix(bits)
	return network, err == nil
}

// allow reports whether the server may be asked about one more unknown token for that peer. All peers without an address
// count as one.
func (p *peers) allow(address string, now time.Time) bool {
	network, _ := networkOf(address)
	w, ok := p.seen.GetIfPresent(network)
	if !ok {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Before(w.paused) {
		return false
	}
	return p.limit == 0 || w.count < p.limit || now.Sub(w.began) >= refusalWindow
}

// countRefusal counts a bad token, and stops calls for that peer for the pause that the server asked for.
func (p *peers) countRefusal(address string, now time.Time, pause time.Duration) {
	network, _ := networkOf(address)
	w, _ := p.seen.ComputeIfAbsent(network, func() (*peer, bool) { return &peer{began: now}, false })
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if now.Sub(w.began) >= refusalWindow {
		w.began, w.count = now, 0
	}
	w.count++
	if until := now.Add(pause); pause > 0 && until.After(w.paused) {
		w.paused = until
	}
}
