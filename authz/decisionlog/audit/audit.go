package audit

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/decisionlog"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Audit adds up what nodes charged according to their logs. It is not safe for concurrent use.
type Audit struct {
	stranded []quota.Stranding
	margin   time.Duration
	slot     int64 // in nanoseconds: times within the margin are told apart no finer
	nodes    map[quota.NodeID]*node
}

// slots is how many slots of time a margin has.
const slots = 16

// New begins an audit of what is stranded: of everything, because each holder is evidence for the others of a node. margin is the
// time before the end of a log that the audit mistrusts; with 0 it believes the end.
func New(stranded []quota.Stranding, margin time.Duration) *Audit {
	a := &Audit{stranded: stranded, margin: margin, slot: max(1, int64(margin)/slots), nodes: make(map[quota.NodeID]*node)}
	for i := range stranded {
		s := &stranded[i]
		n := a.nodes[s.Node]
		if n == nil {
			n = &node{a: a, newest: make(map[int64]uint64), counts: make(map[bucket]*count), limits: make(map[string]*count), blind: make(map[string]uint64)}
			a.nodes[s.Node] = n
		}
		if n.counts[bucketOf(s)] == nil {
			n.counts[bucketOf(s)] = newCount()
		}
		if limit := s.Bucket.Limit; n.limits[limit] == nil {
			n.limits[limit] = newCount()
		}
	}
	return a
}

// bucket names a count as logs do: by the limit's name alone.
type bucket struct {
	per           authz.Per
	holder, limit string
}

func bucketOf(s *quota.Stranding) bucket {
	return bucket{s.Bucket.Per, s.Bucket.Holder, s.Bucket.Limit}
}

// node is what logs say about one node.
type node struct {
	a      *Audit
	seqs   numbers          // of lines
	rids   numbers          // of reservations
	newest map[int64]uint64 // the highest seq in each slot of time within the margin before the end
	end    int64            // the last slot
	old    uint64           // the highest seq in all slots before those
	counts map[bucket]*count
	limits map[string]*count // by name: of all holders

	changed uint64            // the seq of a line that does not say what was charged, 0 if there is none
	blind   map[string]uint64 // by limit: the seq of a line that does not say whose units of a limit per key it took
}

// count is what a node charged of one bucket, or of one limit.
type count struct {
	charged, largest int64
	recent           map[int64]int64 // what was charged in each slot of time: see node.newest
}

func newCount() *count { return &count{recent: make(map[int64]int64)} }

// Read reads a log, or a part of one, which may be compressed with gzip. Parts may come in any order and more than once. Lines
// of other programs are passed over, and so is what was cut off: the numbers show that something is missing.
func (a *Audit) Read(r io.Reader) error {
	in := bufio.NewReaderSize(r, 1<<20)
	if magic, _ := in.Peek(2); bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		unzipped, err := gzip.NewReader(in)
		if err != nil {
			return err
		}
		in = bufio.NewReaderSize(unzipped, 1<<20)
	}
	for {
		text, err := in.ReadBytes('\n')
		if bytes.Contains(text, []byte(`"rid"`)) { // few lines of other programs get further
			var line decisionlog.Line
			if json.Unmarshal(text, &line) == nil {
				a.add(&line)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// add adds a line, unless it was added before.
func (a *Audit) add(line *decisionlog.Line) {
	dot := strings.LastIndexByte(line.RID, '.')
	if dot < 0 || line.Seq == 0 {
		return
	}
	n := a.nodes[quota.NodeID(line.RID[:dot])]
	if n == nil || !n.seqs.add(line.Seq) {
		return
	}
	at := line.At.Add(time.Duration(line.TookUS)*time.Microsecond).UnixNano() / a.slot // when it was recorded
	n.note(at, line.Seq)
	rid, err := strconv.ParseUint(line.RID[dot+1:], 36, 64)
	if err != nil || line.Account == "" || len(line.Charge) == 0 {
		n.changed = line.Seq
		return
	}
	if !n.rids.add(rid) { // Envoy asked about the stream again
		return
	}
	key, known := keyHolder(line)
	for limit, units := range line.Charge {
		if units < 1 || units > authz.MaxCharge {
			n.changed = line.Seq
			return
		}
		if !known {
			n.blind[limit] = line.Seq
		}
		if c := n.limits[limit]; c != nil {
			c.add(units, at, n)
		}
		for _, b := range [...]bucket{{authz.PerAccount, line.Account, limit}, {authz.PerKey, key, limit}} {
			if c := n.counts[b]; c != nil {
				c.add(units, at, n)
			}
		}
	}
}

// keyHolder is the holder of limits per key that a line charged. It returns false if the line does not say it. That of a token
// may be hidden where neither a subject nor a client is named.
func keyHolder(line *decisionlog.Line) (holder string, known bool) {
	switch authz.KeyStatus(line.KeyStatus) {
	case authz.KeyActive:
		if line.Lineage != "" {
			return line.Lineage, true
		}
		return line.KeyID, line.KeyID != ""
	case authz.KeyMissing:
		return authz.BearerHolder(line.Account, line.Issuer, line.Subject, line.Client), line.Subject != "" || line.Client != ""
	}
	return "", false
}

// first is the first slot within the margin before the end.
func (n *node) first() int64 {
	if n.a.margin == 0 {
		return n.end + 1
	}
	return n.end - slots
}

// note notes when a line was recorded.
func (n *node) note(at int64, seq uint64) {
	if at > n.end {
		n.end = at
		for slot, newest := range n.newest {
			if slot < n.first() {
				n.old = max(n.old, newest)
				delete(n.newest, slot)
			}
		}
	}
	if at < n.first() {
		n.old = max(n.old, seq)
	} else {
		n.newest[at] = max(n.newest[at], seq)
	}
}

// add adds a charge.
func (c *count) add(units, at int64, n *node) {
	c.charged = min(c.charged, quota.MaxUnits) + units
	c.largest = max(c.largest, units)
	if len(c.recent) > 4*slots {
		for slot := range c.recent {
			if slot < n.first() {
				delete(c.recent, slot)
			}
		}
	}
	if at >= n.first() {
		c.recent[at] = min(c.recent[at], quota.MaxUnits) + units
	}
}
