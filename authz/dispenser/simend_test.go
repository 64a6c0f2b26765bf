package dispenser

import (
	"context"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// settle ends a world: no client comes any more, all lines are good, and nodes give back what lies idle. A world without faults then
// has nothing out; in others the nodes close. What is charged has to be what clients got, and what nodes held that crashed.
func (w *world) settle() {
	if w.fault != "" {
		return
	}
	quiet := !w.faulty && w.strandings == nil
	w.faulty = false
	for _, n := range w.nodes {
		n.cut, n.open = false, nil
	}
	w.rest(time.Minute) // whatever is under way
	if quiet {
		w.rest(3*keepIdle + keepTold + time.Minute)
		for _, n := range w.nodes {
			if used, idle := n.d.holders.Size(), n.d.idle.size(); used+idle > 0 {
				w.failf("node %s still has %d holders, and %d that were put away", n.d.node, used, idle)
			}
		}
	} else {
		w.closeAll()
	}
	if w.takeovers != nil {
		return
	}
	for _, b := range w.buckets {
		if !quota.IsRate(b.limit) && !b.limit.RefundOnCrash {
			w.compare(b)
		}
	}
}

// closeAll closes the nodes. Their calls run by themselves now: Close waits for them.
func (w *world) closeAll() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, n := range w.nodes {
		n.d.spawn = func(f func()) { go f() }
		if err := n.d.Close(ctx); err != nil {
			w.failf("node %s: %v", n.d.node, err)
		}
	}
}

// compare compares what is charged in a bucket with what clients got of it. Of a period that is over, a node does not learn what it
// was granted in an answer that was lost: those units are stranded as well.
func (w *world) compare(b *simBucket) {
	for _, p := range w.pages(b) {
		over := !p.Period.Forever() && !p.Period.End.After(w.now)
		stranded := int64(0)
		for node, h := range p.Held {
			if w.roll.Alive(node, w.now) && h.Units > 0 && !over {
				w.failf("node %s still holds %d of %+v", node, h.Units, b.Bucket)
			}
			stranded += h.Units
		}
		period := p.Period.Start.Unix()
		charged, admitted := p.Granted-p.Returned, b.perPeriod[period]
		if admitted > charged || charged > admitted+stranded+w.unsure[unsure{b.Bucket, period}] {
			w.failf("%+v: clients got %d in the period from %v, and %d are charged, of which %d are stranded",
				b.Bucket, admitted, p.Period.Start, charged, stranded)
		}
	}
}
