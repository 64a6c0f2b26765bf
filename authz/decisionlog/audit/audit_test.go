package audit

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/decisionlog"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

const theNode = "host.1-ABC"

var began = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// charged is line seq of the node, which charged that many units of acme's credits.
func charged(seq int, at time.Duration, units int64) decisionlog.Line {
	return decisionlog.Line{
		At: began.Add(at), Allowed: true, KeyStatus: "active", KeyID: "key_1", Account: "acme", Charge: authz.Charge{"credits": units},
		RID: theNode + "." + strconv.FormatInt(int64(seq+1000), 36), Seq: uint64(seq),
	}
}

// calm is n charges of one unit, two seconds apart.
func calm(n int) []decisionlog.Line {
	var out []decisionlog.Line
	for i := range n {
		out = append(out, charged(i+1, time.Duration(2*i)*time.Second, 1))
	}
	return out
}

func text(lines []decisionlog.Line) []byte {
	var out bytes.Buffer
	for i := range lines {
		_ = json.NewEncoder(&out).Encode(&lines[i])
	}
	return out.Bytes()
}

func prepaid(per authz.Per, holder string) quota.Bucket {
	return quota.BucketOf(&authz.Limit{Name: "credits", Unit: authz.UnitRequests, Window: authz.WindowNone, Per: per}, authz.Holder{Key: holder, Account: holder})
}

// stranded is units of acme's credits, and what the node had reported.
func stranded(units, reported int64) quota.Stranding {
	return quota.Stranding{Bucket: prepaid(authz.PerAccount, "acme"), Node: theNode, Units: units, Reported: reported}
}

// fataler is a test or a part of one.
type fataler interface{ Fatal(args ...any) }

// findings reads logs and returns what they prove.
func findings(t fataler, margin time.Duration, list []quota.Stranding, logs ...[]byte) []Finding {
	a := New(list, margin)
	for _, log := range logs {
		if err := a.Read(bytes.NewReader(log)); err != nil {
			t.Fatal(err)
		}
	}
	return a.Findings()
}

func TestFindings_WhatWasNotSpent(t *testing.T) {
	for _, c := range []struct {
		name     string
		margin   time.Duration
		stranded quota.Stranding
		lines    []decisionlog.Line
		want     Finding
	}{
		{"the end is believed", 0, stranded(6, 3), calm(5), Finding{Charged: 5, Back: 4}},
		{"one charge is kept", time.Second, stranded(6, 3), calm(5), Finding{Charged: 5, Kept: 1, Back: 3}},
		{"the largest charge is kept", time.Second, stranded(20, 0),
			append(calm(2), charged(3, 10*time.Second, 7), charged(4, 20*time.Second, 1)), Finding{Charged: 10, Kept: 7, Back: 3}},
		{"what was charged in the end is kept", 5 * time.Second, stranded(16, 0), calm(5), Finding{Charged: 5, Kept: 3, Back: 8}},
		{"nothing is left to keep", time.Second, stranded(2, 3), calm(5), Finding{Charged: 5}},
		{"less is left than is kept", 5 * time.Second, stranded(3, 4), calm(5), Finding{Charged: 5, Kept: 2}},
		{"more was charged than was granted", 0, stranded(2, 0), calm(5), Finding{Charged: 5}},
		{"more was reported than charged, within the margin", 5 * time.Second, stranded(9, 8), calm(5), Finding{Charged: 5, Kept: 3, Back: 6}},
		{"nothing was charged", time.Second, quota.Stranding{Bucket: prepaid(authz.PerAccount, "globex"), Node: theNode, Units: 4}, calm(5), Finding{Kept: 1, Back: 3}},
		{"lines are missing at the end", time.Second, stranded(12, 0),
			append(calm(2), charged(3, 20*time.Second, 1), charged(5, 20*time.Second, 1), charged(7, 20*time.Second, 1)),
			Finding{Charged: 5, Kept: 3 + 2, Back: 2}},
		{"a stream that was asked about twice", 0, stranded(6, 0),
			append(calm(2), with(charged(3, 0, 1), func(l *decisionlog.Line) { l.RID = calm(1)[0].RID })), Finding{Charged: 2, Back: 4}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := findings(t, c.margin, []quota.Stranding{c.stranded}, text(c.lines)); got[0] != c.want {
				t.Errorf("got %+v, want %+v", got[0], c.want)
			}
		})
	}
}

// with is a line with a change.
func with(l decisionlog.Line, change func(*decisionlog.Line)) decisionlog.Line {
	change(&l)
	return l
}

// TestFindings_NothingProven is about logs that prove nothing, and what is said about them.
func TestFindings_NothingProven(t *testing.T) {
	third := func(change func(*decisionlog.Line)) []decisionlog.Line {
		return append(calm(2), with(charged(3, 5*time.Second, 1), change))
	}
	const changed, hidden = "charge 3 does not say who paid how much: the log is not as it was written", "charge 3 does not say which key or token paid"
	account, key := stranded(6, 3), quota.Stranding{Bucket: prepaid(authz.PerKey, "key_1"), Node: theNode, Units: 6}
	for _, c := range []struct {
		name     string
		stranded quota.Stranding
		lines    []decisionlog.Line
		want     string
	}{
		{"no log", account, nil, "no charge of the node is in the logs"},
		{"the log of another node", account, []decisionlog.Line{with(charged(1, 0, 1), func(l *decisionlog.Line) { l.RID = "host.1-XYZ.1" })}, "no charge of the node is in the logs"},
		{"the first line is missing", account, calm(5)[1:], "the logs lack charges 1"},
		{"the first lines are missing, within the margin", account, []decisionlog.Line{charged(4, 0, 1), charged(5, 0, 1)}, "the logs lack charges 1 to 3"},
		{"lines are missing", account, slices.Delete(slices.Delete(calm(9), 6, 7), 2, 4), "the logs lack charges 3 to 4, 7"},
		{"many lines are missing", account, slices.DeleteFunc(calm(21), func(l decisionlog.Line) bool { return l.Seq%2 == 0 }),
			"the logs lack charges 2, 4, 6 and 6 more gaps"},
		{"more than the end is missing", stranded(6, 9), calm(5), `the logs lack more than their last lines: the node had reported 9 of credits per account "acme", and they have 5`},
		{"accounts are hidden", account, third(func(l *decisionlog.Line) { l.Account = "" }), changed},
		{"charges are hidden", account, third(func(l *decisionlog.Line) { l.Charge = nil }), changed},
		{"keys are hidden", key, third(func(l *decisionlog.Line) { l.KeyID = "" }), hidden},
		{"states of keys are hidden", key, third(func(l *decisionlog.Line) { l.KeyStatus = "" }), hidden},
		{"subjects are hidden", key, third(func(l *decisionlog.Line) { l.KeyStatus, l.Issuer = "missing", "https://login.example.com" }), hidden},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := findings(t, time.Second, []quota.Stranding{c.stranded}, text(c.lines)); got[0].Missing != c.want || got[0].Back != 0 || got[0].Kept != 0 {
				t.Errorf("got %+v, want %q", got[0], c.want)
			}
		})
	}
}

// TestFindings_OneHolderIsEvidenceForTheOthers refuses what one node left with globex because acme shows that more than the end of
// the node's log is missing.
func TestFindings_OneHolderIsEvidenceForTheOthers(t *testing.T) {
	list := []quota.Stranding{
		{Bucket: prepaid(authz.PerAccount, "globex"), Node: theNode, Units: 4}, stranded(6, 9), {Bucket: prepaid(authz.PerAccount, "globex"), Node: "other", Units: 4},
	}
	other := with(charged(1, 0, 1), func(l *decisionlog.Line) { l.RID = "other.1" })
	got := findings(t, time.Second, list, text(append(calm(5), other)))
	if !strings.Contains(got[0].Missing, `"acme"`) || got[1].Missing != got[0].Missing || got[2] != (Finding{Kept: 1, Back: 3}) {
		t.Errorf("got %+v", got)
	}
}

// TestFindings_FirstChargesAtTheEnd has holders whose first charges are missing, among many charges of acme. What is missing is kept
// again, unless all of it is more than the node charged within the margin.
func TestFindings_FirstChargesAtTheEnd(t *testing.T) {
	var lines []decisionlog.Line
	for i := range 200 {
		lines = append(lines, charged(i+1, time.Duration(10*i)*time.Millisecond, 1))
	}
	lines[0].Account = "initech" // which comes again at the end
	holder := func(account string, units, reported int64) quota.Stranding {
		return quota.Stranding{Bucket: prepaid(authz.PerAccount, account), Node: theNode, Units: units, Reported: reported}
	}
	got := findings(t, time.Second, []quota.Stranding{holder("globex", 10, 3), holder("hooli", 3, 40), holder("initech", 10, 6), stranded(10, 199)}, text(lines))
	recent := got[3].Kept + got[3].Back
	if got[0] != (Finding{Kept: 3, Back: 7}) || got[1] != (Finding{Kept: 3}) || got[2] != (Finding{Charged: 1, Kept: 5, Back: 5}) || recent != 10 {
		t.Errorf("got %+v", got)
	}
	for _, list := range [][]quota.Stranding{
		{holder("globex", 200, 150)},
		{holder("globex", 90, 80), holder("hooli", 90, 80)},
	} {
		if got := findings(t, time.Second, list, text(lines)); got[0].Missing == "" || got[0].Back != 0 {
			t.Errorf("%+v: got %+v", list, got)
		}
	}
	if got := findings(t, 0, []quota.Stranding{holder("globex", 10, 1)}, text(lines)); got[0].Missing == "" {
		t.Errorf("the end is believed: got %+v", got)
	}
}

// TestFindings_HoldersOfLimitsPerKey are the lineage of a key, and the subject or the client of a token.
func TestFindings_HoldersOfLimitsPerKey(t *testing.T) {
	const issuer = "https://login.example.com"
	token := func(seq int, subject, client string) decisionlog.Line {
		return with(charged(seq, 0, 1), func(l *decisionlog.Line) {
			l.KeyStatus, l.KeyID, l.Issuer, l.Subject, l.Client = "missing", "", issuer, subject, client
		})
	}
	lines := []decisionlog.Line{
		charged(1, 0, 1), with(charged(2, 0, 1), func(l *decisionlog.Line) { l.KeyID, l.Lineage = "key_2", "key_1" }), charged(3, 0, 1),
		token(4, "alice", ""), token(5, "alice", ""), token(6, "", "crm"),
	}
	var list []quota.Stranding
	for _, holder := range []string{"key_1", "key_2", authz.BearerHolder("acme", issuer, "alice", ""), authz.BearerHolder("acme", issuer, "", "crm")} {
		list = append(list, quota.Stranding{Bucket: prepaid(authz.PerKey, holder), Node: theNode, Units: 10})
	}
	list = append(list, stranded(10, 0))
	got := findings(t, 0, list, text(lines))
	for i, want := range []int64{3, 0, 2, 1, 6} {
		if got[i] != (Finding{Charged: want, Back: 10 - want}) {
			t.Errorf("%s: got %+v, want %d charged", list[i].Bucket.Holder, got[i], want)
		}
	}
}

// TestRead_AnyParts reads a log in parts, in any order and twice, compressed, and among the lines of other programs.
func TestRead_AnyParts(t *testing.T) {
	const torn = `{"decision_id":"x","at":"2026-12-01T12:00:00Z","rid":"` + theNode + `.1","seq":77,"cha`
	lines := calm(50)
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(text(lines[:20]))
	_ = z.Close()
	last := slices.Concat([]byte("time=2026 msg=\"rid\"\n{}\nnull\n{\"rid\":7}\n{\"rid\":\"\"}\n"), text(lines[20:]), []byte(torn))
	got := findings(t, 5*time.Second, []quota.Stranding{stranded(60, 0)}, last, zipped.Bytes(), text(lines[10:30]))
	if got[0] != (Finding{Charged: 50, Kept: 3, Back: 7}) {
		t.Errorf("got %+v", got[0])
	}
	if err := New(nil, 0).Read(bytes.NewReader(zipped.Bytes()[:zipped.Len()/2])); err == nil {
		t.Error("half of a compressed file passes for a whole one")
	}
	if err := New(nil, 0).Read(io.MultiReader(bytes.NewReader(text(lines)), iotest.ErrReader(errors.New("disk broken")))); err == nil {
		t.Error("a file that cannot be read passes for a whole one")
	}
}

// TestRead_WrongNumbersCostLittle reads numbers that no node reaches.
func TestRead_WrongNumbersCostLittle(t *testing.T) {
	lines := append(calm(3), with(charged(4, 0, 1), func(l *decisionlog.Line) { l.Seq = 1<<64 - 1 }), with(charged(5, 0, authz.MaxCharge), func(l *decisionlog.Line) { l.Seq = 1 << 60 }))
	got := findings(t, time.Hour, []quota.Stranding{stranded(10, 0)}, text(lines))
	if got[0].Back != 0 {
		t.Errorf("got %+v", got[0])
	}
}

// TestFindings_NeverTooMuch has a node charge several accounts, loses lines, and mixes up the rest. If lines from before the margin
// are missing, nothing comes back; if lines within it are, no more comes back than was left, as long as no more was lost than is
// kept; and if none is, what comes back and what is kept is what was left.
func TestFindings_NeverTooMuch(t *testing.T) {
	const margin = time.Second
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "n")
		accounts := []string{"acme", "globex", "initech"}
		spent := make(map[string]int64)
		var lines []decisionlog.Line
		at := time.Duration(0)
		for seq := 1; seq <= n; seq++ {
			at += time.Duration(rapid.IntRange(0, 400).Draw(t, "ms")) * time.Millisecond
			l := charged(seq, at, rapid.Int64Range(1, 3).Draw(t, "units"))
			l.Account = rapid.SampledFrom(accounts).Draw(t, "account")
			spent[l.Account] += l.Charge["credits"]
			lines = append(lines, l)
		}
		var list []quota.Stranding
		left := make(map[string]int64)
		for _, account := range accounts {
			reported := rapid.Int64Range(0, spent[account]).Draw(t, "reported")
			left[account] = rapid.Int64Range(0, 20).Draw(t, "left")
			list = append(list, quota.Stranding{Bucket: prepaid(authz.PerAccount, account), Node: theNode, Units: spent[account] - reported + left[account], Reported: reported})
		}
		lose := rapid.SliceOfNDistinct(rapid.IntRange(max(0, n-5), n-1), 0, 4, rapid.ID).Draw(t, "lost")
		early, lost := false, make(map[string]int64)
		var kept []decisionlog.Line
		for i, l := range lines {
			if slices.Contains(lose, i) {
				early = early || i == 0
				lost[l.Account] += l.Charge["credits"]
			} else {
				kept = append(kept, l)
			}
		}
		for i := range lose { // a line is missing early if later ones are from before the margin
			for j := lose[i] + 1; j < n; j++ {
				end := kept
				if len(end) > 0 && !slices.Contains(lose, j) && end[len(end)-1].At.Sub(lines[j].At) > margin+margin/slots {
					early = true
				}
			}
		}
		shuffled := slices.Concat(kept, kept[len(kept)/2:])
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for i, got := range findings(t, margin, list, text(shuffled)) {
			account := list[i].Bucket.Holder
			switch {
			case early && len(kept) > 0 && got.Missing == "":
				t.Fatalf("%s: lines %v are missing, and %+v", account, lose, got)
			case got.Missing != "" && got.Back != 0:
				t.Fatalf("%s: %+v", account, got)
			case len(lose) == 0 && (got.Missing != "" || got.Back+got.Kept != left[account]):
				t.Fatalf("%s: %d are left of %+v, not %+v", account, left[account], list[i], got)
			case lost[account] <= max(1, 2*(list[i].Reported-got.Charged)) && got.Back > left[account]:
				t.Fatalf("%s: %d are left of %+v, not %+v", account, left[account], list[i], got)
			}
		}
	})
}
