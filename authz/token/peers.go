package token

import (
	"net/netip"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"
)

const (
	// refusalWindow is the time in which refusals are counted. A client that comes again and again with one token counts once
	// in a negative_ttl.
	refusalWindow = time.Minute
	// maxPeers is how many peers are watched.
	maxPeers = 20_000
)

// peers counts the tokens that are not good by who sent them.
type peers struct {
	most int // refusals in a window; 0: any number
	seen *otter.Cache[netip.Prefix, *peer]
}

type peer struct {
	mu     sync.Mutex
	began  time.Time // of the window
	count  int
	paused time.Time // until then
}

func newPeers(most int) *peers {
	return &peers{most: most, seen: otter.Must(&otter.Options[netip.Prefix, *peer]{
		MaximumSize: maxPeers, ExpiryCalculator: otter.ExpiryAccessing[netip.Prefix, *peer](2 * refusalWindow),
	})}
}

func (p *peers) close() { p.seen.StopAllGoroutines() }

// networkOf is who counts as one peer: an IPv4 address, and of IPv6 the network of which a customer has all addresses.
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

// may reports whether a server is to be asked about one more token that is not known, for that peer. A peer without an
// address is one of them all.
func (p *peers) may(address string, now time.Time) bool {
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
	return p.most == 0 || w.count < p.most || now.Sub(w.began) >= refusalWindow
}

// refused counts a token that is not good, and leaves the server alone for that peer as long as it wants.
func (p *peers) refused(address string, now time.Time, pause time.Duration) {
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
