package dispenser

import (
	"maps"
	"sync"
)

// Held is what a node has, for the metrics.
type Held struct {
	InUse, PutAway int              // holders
	Units          map[string]int64 // leased and not spent, by the name of the limit
}

// Held adds up what the node has. It looks at each holder in use, as a sweep does, and takes no lock for long.
func (d *Dispenser) Held() Held {
	out := Held{PutAway: d.idle.size(), Units: d.idle.units.all()}
	for _, h := range d.holders.All() {
		out.InUse++
		for b := h.leases.Load(); b != nil; b = b.next {
			out.Units[b.limit.Load().Name] += b.source.Load().Left()
		}
	}
	return out
}

// unitCount counts the units of leases that were put away, by the name of the limit: to add them up would mean to read all that was
// put away. The zero value is empty. Its methods may be called concurrently.
type unitCount struct {
	mu    sync.Mutex
	units map[string]int64
}

func (c *unitCount) add(limit string, units int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.units == nil {
		c.units = make(map[string]int64)
	}
	c.units[limit] += units
}

func (c *unitCount) all() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]int64, len(c.units))
	maps.Copy(out, c.units)
	return out
}
