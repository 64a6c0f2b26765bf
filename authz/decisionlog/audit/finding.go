package audit

import (
	"fmt"
	"strings"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Finding is what the logs prove about units that are stranded.
type Finding struct {
	// Missing says why they prove nothing, "" if they do. Then nothing comes back.
	Missing string
	// Charged is what the node charged of the bucket.
	Charged int64
	// Kept is how many units stay charged because the end of the log may be missing. Back is how many come back. The two are
	// no more than the units that are stranded; the others were spent.
	Kept, Back int64
}

// Findings are what the logs that were read prove, in the order in which New was told what is stranded.
func (a *Audit) Findings() []Finding {
	lost := make(map[quota.NodeID]uint64, len(a.nodes))
	faults := make(map[quota.NodeID]string, len(a.nodes))
	for name, n := range a.nodes {
		lost[name], faults[name] = n.fault()
	}
	type limitOf struct {
		node  quota.NodeID
		limit string
	}
	missing := make(map[limitOf]int64) // units that were reported, and are not in the logs
	out := make([]Finding, len(a.stranded))
	for i := range a.stranded {
		s := &a.stranded[i]
		n := a.nodes[s.Node]
		c := n.counts[bucketOf(s)]
		margin, ahead := c.margin(lost[s.Node], n), s.Reported-c.charged
		if ahead > margin {
			margin = ahead // the holder came in the end, and was not seen for long before
			of := limitOf{s.Node, s.Bucket.Limit}
			missing[of] += ahead
			if faults[s.Node] == "" && missing[of] > n.limits[s.Bucket.Limit].margin(lost[s.Node], n) {
				faults[s.Node] = fmt.Sprintf("the logs lack more than their last lines: the node had reported %d of %s per %s %q, and they have %d",
					s.Reported, s.Bucket.Limit, s.Bucket.Per, s.Bucket.Holder, c.charged)
			}
		}
		out[i] = c.find(s, margin)
	}
	for i := range a.stranded {
		s := &a.stranded[i]
		fault := faults[s.Node]
		if seq := a.nodes[s.Node].blind[s.Bucket.Limit]; fault == "" && seq > 0 && s.Bucket.Per == authz.PerKey {
			fault = fmt.Sprintf("charge %d does not say which key or token paid", seq)
		}
		if fault != "" {
			out[i] = Finding{Missing: fault, Charged: out[i].Charged}
		}
	}
	return out
}

// fault says why the logs of a node prove nothing, "" if they do, and how many lines are missing within the margin.
func (n *node) fault() (lost uint64, fault string) {
	if n.seqs.max == 0 {
		return 0, "no charge of the node is in the logs"
	}
	var gaps []span
	for _, g := range n.seqs.gaps() {
		if g.from == 1 || g.to < n.old {
			gaps = append(gaps, g)
		} else {
			lost += g.to - g.from + 1
		}
	}
	switch {
	case gaps != nil:
		return lost, "the logs lack " + list(gaps)
	case n.changed > 0:
		return lost, fmt.Sprintf("charge %d does not say who paid how much: the log is not as it was written", n.changed)
	}
	return lost, ""
}

// list names gaps, the first few.
func list(gaps []span) string {
	const few = 3
	var texts []string
	for _, g := range gaps[:min(few, len(gaps))] {
		if g.from == g.to {
			texts = append(texts, fmt.Sprint(g.from))
		} else {
			texts = append(texts, fmt.Sprintf("%d to %d", g.from, g.to))
		}
	}
	text := "charges " + strings.Join(texts, ", ")
	if more := len(gaps) - few; more > 0 {
		text += fmt.Sprintf(" and %d more gaps", more)
	}
	return text
}

// margin is how many units the end of the log may lack, if that many lines are missing there.
func (c *count) margin(lost uint64, n *node) int64 {
	if n.a.margin == 0 {
		return 0
	}
	var recent int64
	for slot, charged := range c.recent {
		if slot >= n.first() {
			recent = min(recent+charged, quota.MaxUnits)
		}
	}
	largest := max(1, c.largest)
	if lost > uint64(quota.MaxUnits/largest) {
		return quota.MaxUnits
	}
	return max(recent, largest) + largest*int64(lost)
}

// find is the finding if the log lacks nothing. What the node had reported was spent, even if the log lacks it.
func (c *count) find(s *quota.Stranding, margin int64) Finding {
	unspent := max(0, min(s.Units, s.Units+s.Reported-c.charged))
	kept := min(unspent, margin)
	return Finding{Charged: c.charged, Kept: kept, Back: unspent - kept}
}
