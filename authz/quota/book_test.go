package quota_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

func noon() time.Time { return time.Date(2024, 5, 15, 12, 0, 0, 0, time.UTC) }

func prepaidLimit(units int64) authz.Limit {
	return authz.Limit{Name: "credits", Units: units, Window: authz.WindowNone}
}

// TestBook_NeverOverGrants has honest nodes use a book, with crashes, lost answers and refunds, and counts by itself
// what they were really able to use.
func TestBook_NeverOverGrants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const nodes = 3
		var (
			book     quota.Book
			now      = noon()
			l        = prepaidLimit(rapid.Int64Range(0, 30).Draw(t, "units"))
			credited int64
			used     int64 // by requests that were served, less refunds
			held     [nodes]int64
			unsaid   [nodes]int64 // used and not reported
			seqs     [nodes]uint64
			runs     [nodes]int  // a process that starts again is another node
			charged  = []int64{} // by requests that can still be settled
		)
		node := func() int { return rapid.IntRange(0, nodes-1).Draw(t, "node") }
		id := func(n int) quota.NodeID { return quota.NodeID(fmt.Sprint(n, ".", runs[n])) }
		t.Repeat(map[string]func(*rapid.T){
			"lease": func(t *rapid.T) {
				n := node()
				seqs[n]++
				r := quota.LeaseRequest{Node: id(n), Seq: seqs[n], Limit: l, Spent: unsaid[n], Want: rapid.Int64Range(0, 9).Draw(t, "want")}
				var lease quota.Lease
				for range rapid.IntRange(1, 3).Draw(t, "times") { // a request whose answer is lost is repeated
					var err error
					if lease, err = book.Lease(r, now); err != nil {
						t.Fatal(err)
					}
				}
				held[n], unsaid[n] = lease.Held, 0
			},
			"use": func(t *rapid.T) {
				n := node()
				units := rapid.Int64Range(0, held[n]).Draw(t, "units")
				held[n], unsaid[n], used = held[n]-units, unsaid[n]+units, used+units
				charged = append(charged, units)
			},
			"return": func(t *rapid.T) {
				n := node()
				seqs[n]++
				if err := book.Return(quota.ReturnRequest{Node: id(n), Seq: seqs[n], Limit: l, Spent: unsaid[n], Units: held[n]}, now); err != nil {
					t.Fatal(err)
				}
				held[n], unsaid[n] = 0, 0
			},
			"crash": func(*rapid.T) {
				n := node()
				held[n], unsaid[n] = 0, 0
				runs[n]++
			},
			"settle": func(t *rapid.T) {
				if len(charged) == 0 {
					return
				}
				estimate := charged[0]
				charged = charged[1:]
				s, err := book.Settle(quota.SettleRequest{Limit: l, Estimate: estimate, Actual: rapid.Int64Range(0, 12).Draw(t, "actual")}, now)
				if err != nil {
					t.Fatal(err)
				}
				used += s.Charged - s.Refunded
			},
			"credit": func(t *rapid.T) {
				units := rapid.Int64Range(1, 9).Draw(t, "units")
				if err := book.Credit(quota.CreditRequest{Limit: l, Units: units}, now); err != nil {
					t.Fatal(err)
				}
				credited += units
			},
			"wait": func(*rapid.T) { now = now.Add(quota.LeaseTerm / 2) },
			"": func(t *rapid.T) {
				if err := book.Check(); err != nil {
					t.Fatal(err)
				}
				able := used
				for n := range nodes {
					able += held[n]
				}
				free := book.Balance(quota.Bucket{}, l, now).Free
				if able+free > l.Units+credited {
					t.Fatalf("%d were used or can be, and %d are free, of %d: %+v", able, free, l.Units+credited, *book.Prepaid)
				}
			},
		})
	})
}

// TestBook_RefusalChangesNothing applies verbs that are refused to a book in use.
func TestBook_RefusalChangesNothing(t *testing.T) {
	l := authz.Limit{Name: "requests", Units: 10, Window: authz.WindowHour}
	held := quota.PeriodAt(&l, noon())
	var book quota.Book
	if _, err := book.Lease(quota.LeaseRequest{Node: "a", Seq: 5, Limit: l, Want: 4}, noon()); err != nil {
		t.Fatal(err)
	}
	noWindow, tooMuch, prepaid := l, l, prepaidLimit(1)
	noWindow.Window, tooMuch.Units = "", quota.MaxUnits+1
	before := marshal(t, book)
	for name, verb := range map[string]func() error{
		"lease of less than nothing": func() error {
			_, err := book.Lease(quota.LeaseRequest{Node: "a", Seq: 6, Limit: l, Want: -1}, noon())
			return err
		},
		"lease that is late": func() error {
			_, err := book.Lease(quota.LeaseRequest{Node: "a", Seq: 4, Limit: l, Held: held, Spent: 1, Want: 1}, noon())
			return err
		},
		"lease without a window": func() error {
			_, err := book.Lease(quota.LeaseRequest{Node: "a", Seq: 6, Limit: noWindow, Want: 1}, noon())
			return err
		},
		"lease of too large a limit": func() error {
			_, err := book.Lease(quota.LeaseRequest{Node: "a", Seq: 6, Limit: tooMuch, Want: 1}, noon())
			return err
		},
		"return that is late": func() error {
			return book.Return(quota.ReturnRequest{Node: "a", Seq: 4, Limit: l, Held: held, Units: 1}, noon())
		},
		"return of less": func() error {
			return book.Return(quota.ReturnRequest{Node: "a", Seq: 6, Limit: l, Held: held, Units: -1}, noon())
		},
		"return without a window": func() error { return book.Return(quota.ReturnRequest{Node: "a", Seq: 6, Limit: noWindow}, noon()) },
		"settlement of less": func() error {
			_, err := book.Settle(quota.SettleRequest{Limit: l, Period: held, Actual: -1}, noon())
			return err
		},
		"settlement, no window": func() error {
			_, err := book.Settle(quota.SettleRequest{Limit: noWindow, Period: held}, noon())
			return err
		},
		"credit of nothing":       func() error { return book.Credit(quota.CreditRequest{Limit: l}, noon()) },
		"credit without a window": func() error { return book.Credit(quota.CreditRequest{Limit: noWindow, Units: 1}, noon()) },
		"reset of prepaid":        func() error { return book.Reset(quota.ResetRequest{Limit: prepaid}, noon()) },
		"reset without a window":  func() error { return book.Reset(quota.ResetRequest{Limit: noWindow}, noon()) },
	} {
		if err := verb(); err == nil {
			t.Errorf("%s is not refused", name)
		}
		if after := marshal(t, book); after != before {
			t.Fatalf("%s: the book is\n%s, was\n%s", name, after, before)
		}
	}
}

func marshal(t *testing.T, v any) string {
	t.Helper()
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestBook_VeryLargeLimits leases and returns the largest limit until the counts would overflow.
func TestBook_VeryLargeLimits(t *testing.T) {
	var book quota.Book
	l := prepaidLimit(quota.MaxUnits)
	for seq := uint64(1); seq < 10_000; seq += 2 {
		lease, err := book.Lease(quota.LeaseRequest{Node: "a", Seq: seq, Limit: l, Spent: 1, Want: quota.MaxUnits}, noon())
		if err != nil || lease.Granted != quota.MaxUnits {
			t.Fatalf("lease %d: %+v, %v", seq, lease, err)
		}
		if err := book.Return(quota.ReturnRequest{Node: "a", Seq: seq + 1, Limit: l, Units: quota.MaxUnits}, noon()); err != nil {
			t.Fatal(err)
		}
		if _, err := book.Settle(quota.SettleRequest{Limit: l, Actual: quota.MaxUnits}, noon()); err != nil {
			t.Fatal(err)
		}
		if _, err := book.Settle(quota.SettleRequest{Limit: l, Estimate: quota.MaxUnits}, noon()); err != nil {
			t.Fatal(err)
		}
		if err := book.Check(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestBook_ForgetsNodes checks that a book does not grow with every process that ever leased from it.
func TestBook_ForgetsNodes(t *testing.T) {
	var book quota.Book
	l := authz.Limit{Name: "requests", Units: 1000, Window: authz.WindowHour}
	for i := range 500 {
		now := noon().Add(time.Duration(i) * 10 * time.Minute)
		if _, err := book.Lease(quota.LeaseRequest{Node: quota.NodeID(fmt.Sprint(i)), Seq: 1, Limit: l, Want: 1}, now); err != nil {
			t.Fatal(err)
		}
	}
	if len(book.Seen) > 20 {
		t.Fatalf("%d nodes are remembered", len(book.Seen))
	}
}

func TestBook_CheckFindsFaults(t *testing.T) {
	held := map[quota.NodeID]quota.Holding{"a": {Units: 3}}
	for name, page := range map[string]quota.Page{
		"sums":              {Granted: 5, Spent: 1, Held: held, Ceiling: 9},
		"nothing held":      {Held: map[quota.NodeID]quota.Holding{"a": {}}},
		"less than nothing": {Granted: -1, Spent: -1},
		"returned too much": {Granted: 1, Spent: -1, Returned: 2},
		"forgiven too much": {Granted: 3, Held: held, Forgiven: 4, Ceiling: 3},
		"granted too much":  {Granted: 8, Spent: 4, Returned: 1, Held: held, Forgiven: 1, Ceiling: 5},
	} {
		for i, book := range []quota.Book{{Current: &page}, {Previous: &page}, {Prepaid: &page}} {
			if book.Check() == nil && name != "less than nothing" {
				t.Errorf("%s, page %d: nothing was found", name, i)
			}
		}
	}
	if err := (&quota.Book{Current: &quota.Page{Granted: 5, Spent: 1, Returned: 1, Held: held, Forgiven: 1, Ceiling: 3}}).Check(); err != nil {
		t.Error(err)
	}
}

// FuzzBucketKey looks for two buckets of one key.
func FuzzBucketKey(f *testing.F) {
	f.Add("key", "a", "\x01b\x00\x00\x00\x00", "key", "a", "b")
	f.Add("key", "a", "b", "key", "ab", "")
	f.Add("key", "a_b", "c", "key", "a", "b_c")
	f.Add("", "\x03key", "", "key", "", "")
	f.Add("key", "\x00", "", "key", "", "\x00")
	f.Add("key\x01", "a", "b", "key", "\x01a", "b")
	f.Fuzz(func(t *testing.T, per1, holder1, limit1, per2, holder2, limit2 string) {
		a := quota.Bucket{Per: authz.Per(per1), Holder: holder1, Limit: limit1}
		b := quota.Bucket{Per: authz.Per(per2), Holder: holder2, Limit: limit2}
		if b.Unit = limit1; a.Key() == b.Key() {
			t.Fatalf("%+v has the key of %+v", a, b)
		}
		if b.Unit = ""; (a == b) != (a.Key() == b.Key()) {
			t.Fatalf("%+v has key %q, %+v has key %q", a, a.Key(), b, b.Key())
		}
	})
}

func TestBucketOf_Holder(t *testing.T) {
	h := authz.Holder{Key: "key_1", Account: "acme"}
	for _, c := range []struct {
		per  authz.Per
		want string
	}{{authz.PerKey, "key_1"}, {authz.PerAccount, "acme"}, {"", "key_1"}} {
		l := authz.Limit{Name: "n", Per: c.per}
		if got := quota.BucketOf(&l, h); got != (quota.Bucket{Per: c.per, Holder: c.want, Limit: "n"}) {
			t.Errorf("per %q: %+v", c.per, got)
		}
	}
}
