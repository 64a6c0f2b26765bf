package holding

import (
	"sync"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// locked is the oracle of Holding: the same counts behind a lock, which every method takes.
type locked struct {
	period  quota.Period
	session *Session

	mu       sync.Mutex
	terms    terms
	left     int64
	issued   int64
	reported int64
}

func newLocked(node *Session, p quota.Period) *locked {
	return &locked{session: node, period: p, terms: none}
}

func (h *locked) Take(units, limit int64, now func() time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := now()
	if h.left-units < max(0, h.terms.counted-limit) || limit < h.terms.askedUnder || !h.goodLocked(t) {
		return false
	}
	h.left -= units
	return true
}

func (h *locked) goodLocked(now time.Time) bool {
	return h.session.Runs(h.terms.session, now) && (h.period.Forever() || now.Before(h.period.End))
}

func (h *locked) Known(limit int64, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.terms.asked == never || limit < h.terms.askedUnder || !h.goodLocked(now) {
		return false
	}
	since := h.session.since(now, h.terms.asked)
	return h.left > max(0, h.terms.counted-limit) || h.terms.counted >= limit && since >= 0 && since < Recheck
}

func (h *locked) Remaining(limit int64) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return max(0, h.left+limit-h.terms.counted)
}

func (h *locked) Refill(l quota.Lease, sent Sent, limit, low int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.dropLocked(h.issued - h.reported - (l.Held - l.Granted))
	h.issued += l.Granted
	h.left += l.Granted
	h.terms = terms{
		session: sent.Session, asked: h.session.at(sent.At), askedUnder: limit, counted: l.Counted, credited: l.Credited, low: low,
	}
}

func (h *locked) dropLocked(units int64) int64 {
	n := max(0, min(units, h.left))
	h.left -= n
	h.issued -= n
	return n
}

func (h *locked) Drain() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.terms.session = 0
	return h.giveUpLocked(h.left)
}

func (h *locked) GiveUp(units int64) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.giveUpLocked(units)
}

func (h *locked) giveUpLocked(units int64) int64 {
	n := h.dropLocked(units)
	h.terms.counted -= n
	return n
}

func (h *locked) Restock(units int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.terms.counted += units
	h.issued += units
	h.left += units
}

func (h *locked) Unreported() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	spent := min(quota.MaxUnits, h.issued-h.left-h.reported)
	h.reported += spent
	return spent
}

func (h *locked) Restore(units int64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.issued-h.left-h.reported < units {
		return false
	}
	h.left += units
	return true
}
