package quotatest

import (
	"fmt"
	"time"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

var leaseTests = suite{
	{"lease grants up to the allowance", leaseGrants},
	{"lease keeps what is held and books what was spent", leaseBooks},
	{"lease of nothing is a report", leaseOfNothing},
	{"lease repeated returns the first answer", leaseRepeated},
	{"lease with a lower seq is refused", leaseLate},
	{"seqs are counted for each node and bucket", seqsApart},
	{"more spent than held is overage", leaseOverage},
	{"return gives back what is held and no more", returns},
	{"return repeated counts once", returnRepeated},
	{"several limits are one request", manyParts},
	{"several requests are one call", manyRequests},
	{"invalid requests change nothing", invalid},
	{"buckets are apart", bucketsApart},
	{"balance of an unused bucket", balanceUnused},
	{"rates are refused", rates},
}

func leaseGrants(f *fixture) {
	l := tenAnHour()
	period := quota.PeriodAt(&l, f.clock.Now())
	f.Same("the first lease", f.lease("a", l, 0, 4), quota.Lease{
		Period: period, Granted: 4, Held: 4, Counted: 4, Nodes: 1,
	})
	f.Same("the second lease", f.lease("b", l, 0, 20), quota.Lease{
		Period: period, Granted: 6, Held: 6, Counted: 10, Elsewhere: 4, Nodes: 2,
	})
	f.Same("the third lease", f.lease("c", l, 0, 1), quota.Lease{
		Period: period, Counted: 10, Elsewhere: 10, Nodes: 3,
	})
	f.Same("the balance", f.balance(l), quota.Balance{
		Bucket: bucketFor(l), Period: period, Allowance: 10, Granted: 10, Outstanding: map[quota.NodeID]int64{"a": 4, "b": 6},
	})
}

func leaseBooks(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 4)
	if got := f.lease("a", l, 3, 2); got.Granted != 2 || got.Held != 3 || got.Counted != 6 {
		f.Fatalf("lease after 3 of 4 were spent: %+v", got)
	}
	if got := f.balance(l); got.Granted != 6 || got.Spent != 3 || got.Outstanding["a"] != 3 || got.Free != 4 {
		f.Fatalf("balance: %+v", got)
	}
	if got := f.lease("a", l, 3, 0); got.Held != 0 {
		f.Fatalf("all was spent and still held: %+v", got)
	}
	if got := f.balance(l); len(got.Outstanding) != 0 || got.Spent != 6 {
		f.Fatalf("balance after all was spent: %+v", got)
	}
}

func leaseOfNothing(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 4)
	f.clock.Advance(quota.SessionTerm - time.Second)
	if got := f.lease("a", l, 1, 0); got.Granted != 0 || got.Held != 3 {
		f.Fatalf("lease of nothing: %+v", got)
	}
	f.clock.Advance(quota.SessionTerm - time.Second)
	if got := f.balance(l); got.Stranded != 0 || got.Outstanding["a"] != 3 {
		f.Fatalf("the report did not renew the lease: %+v", got)
	}
}

func leaseRepeated(f *fixture) {
	l := tenAnHour()
	r := f.request("a", l, 0, 4)
	first := f.send(r)
	f.lease("b", l, 0, 3)
	f.clock.Advance(2 * time.Second)
	before := f.balance(l)
	again := f.send(r)
	if again.Granted != first.Granted || again.Held != first.Held || again.Counted != 7 {
		f.Fatalf("the repeated answer: %+v, was %+v", again, first)
	}
	f.Same("the balance", f.balance(l), before)

	r = f.request("a", l, 2, 1)
	first = f.send(r)
	f.clock.Advance(time.Hour) // into the next period
	if again = f.send(r); again.Granted != 0 || again.Held != 0 || again.Period.Same(first.Period) {
		f.Fatalf("the repeated answer in the next period: %+v", again)
	}
	if got := f.balance(l); got.Granted != 0 {
		f.Fatalf("a repetition counted in the new period: %+v", got)
	}
}

func leaseLate(f *fixture) {
	l := tenAnHour()
	late := f.request("a", l, 0, 4)
	f.lease("a", l, 0, 2)
	before := f.balance(l)
	f.Refused(f.refusal(late), authz.KindConflict)
	late.Want, late.Back = 0, 1
	f.Refused(f.refusal(late), authz.KindConflict)
	f.Same("the balance", f.balance(l), before)
}

func seqsApart(f *fixture) {
	l := tenAnHour()
	for range 3 {
		f.lease("a", l, 0, 1)
	}
	if got := f.lease("b", l, 0, 1); got.Granted != 1 {
		f.Fatalf("first request of another node: %+v", got)
	}
	r := f.request("a", l, 0, 1)
	r.Bucket.Holder, r.Seq = "another", 1
	if got := f.send(r); got.Granted != 1 {
		f.Fatalf("first request for another bucket: %+v", got)
	}
	r = f.request("c", l, 0, 1)
	r.Seq = 0
	if got := f.send(r); got.Granted != 1 {
		f.Fatalf("a row that begins at 0: %+v", got)
	}
	if got := f.send(r); got.Held != 1 {
		f.Fatalf("its repetition: %+v", got)
	}
}

func leaseOverage(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 4)
	f.lease("a", l, 7, 0)
	if got := f.balance(l); got.Spent != 4 || got.Overage != 3 || got.Free != 6 {
		f.Fatalf("7 spent of 4: %+v", got)
	}
}

func returns(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 6)
	f.giveBack("a", l, 2, 3)
	if got := f.balance(l); got.Granted != 6 || got.Spent != 2 || got.Returned != 3 || got.Outstanding["a"] != 1 || got.Free != 7 {
		f.Fatalf("2 spent and 3 returned of 6: %+v", got)
	}
	f.giveBack("a", l, 0, 100)
	f.giveBack("stranger", l, 0, 100)
	if got := f.balance(l); got.Returned != 4 || got.Free != 8 || len(got.Outstanding) != 0 {
		f.Fatalf("more returned than held: %+v", got)
	}
	if got := f.lease("b", l, 0, 10); got.Granted != 8 {
		f.Fatalf("what was returned can be leased: %+v", got)
	}
}

func returnRepeated(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 6)
	r := f.request("a", l, 0, 0)
	r.Spent, r.Back = 1, 2
	for range 3 {
		f.send(r)
	}
	if got := f.balance(l); got.Spent != 1 || got.Returned != 2 || got.Outstanding["a"] != 3 {
		f.Fatalf("returned three times: %+v", got)
	}
}

func invalid(f *fixture) {
	l := tenAnHour()
	f.lease("a", l, 0, 4)
	f.credit("taken", l, 1)
	before := f.balance(l)
	for _, n := range []struct{ spent, want int64 }{{-1, 1}, {0, -1}, {quota.MaxUnits + 1, 0}, {0, quota.MaxUnits + 1}} {
		f.Refused(f.refusal(f.request("a", l, n.spent, n.want)), authz.KindInvalid)
		r := f.request("a", l, n.spent, 0)
		r.Back = n.want
		f.Refused(f.refusal(r), authz.KindInvalid)
		_, err := f.ledger.Settle(f.Ctx(), f.settlement("s", l, n.spent, n.want))
		f.Refused(err, authz.KindInvalid)
	}
	for _, units := range []int64{0, -1, quota.MaxUnits + 1, quota.MaxUnits} {
		_, err := f.ledger.Credit(f.Ctx(), quota.CreditRequest{ID: "c", Bucket: bucketFor(l), Limit: l, Units: units})
		f.Refused(err, authz.KindInvalid)
	}
	f.Same("the balance", f.balance(l), before)

	for _, bad := range []func(*authz.Limit){
		func(l *authz.Limit) { l.Window = "" }, func(l *authz.Limit) { l.Window = "fortnight" },
		func(l *authz.Limit) { l.Units = -1 }, func(l *authz.Limit) { l.Units = quota.MaxUnits + 1 },
	} {
		broken := tenAnHour()
		bad(&broken)
		r := f.request("a", l, 0, 1)
		r.Limit = broken
		f.Refused(f.refusal(r), authz.KindInvalid)
	}
	f.Same("the balance", f.balance(l), before)
	if got := f.lease("a", l, 0, 1); got.Granted != 1 {
		f.Fatalf("lease after refusals: %+v", got)
	}
}

func bucketsApart(f *fixture) {
	buckets := []quota.Bucket{
		{Per: "key", Holder: "a", Limit: "b"}, {Per: "key", Holder: "a_b", Limit: ""}, {Per: "key", Holder: "", Limit: "a_b"},
		{Per: "account", Holder: "a", Limit: "b"}, {Per: "key", Holder: "a", Limit: "B"}, {Per: "key", Holder: "a:b", Limit: "c"},
		{Per: "key", Holder: "a", Limit: "b:c"}, {Per: "key", Holder: "a{b}", Limit: "c"}, {Per: "key", Holder: "a", Limit: "{b}c"},
		{Per: "key", Holder: "\x01a", Limit: "b"}, {Per: "key", Holder: "\x00", Limit: ""}, {Per: "key", Holder: "", Limit: "\x00"},
		{Per: "key", Holder: "ä/…\n", Limit: "%s"}, {Per: "key", Holder: "a", Limit: "b", Unit: "tokens"},
		{Per: "key", Holder: "a", Limit: "b", Window: "hour"}, {Per: "key", Holder: "a", Limit: "b", Zone: "hour"},
		{Per: "key", Holder: "a", Limit: "b", Window: "month"}, {Per: "key", Holder: "a", Limit: "b", Window: "month", Anchor: 1},
	}
	l := tenAnHour()
	for i, b := range buckets {
		got, err := f.try(Ask{Node: "a", Seq: uint64(i) + 1, Bucket: b, Limit: l, Want: int64(i%10) + 1})
		if err != nil || got.Granted != int64(i%10)+1 || got.Held != got.Granted {
			f.Fatalf("bucket %+v: %+v, %v", b, got, err)
		}
	}
	for i, b := range buckets {
		got, err := f.ledger.Balance(f.Ctx(), b, l)
		if err != nil || got.Granted != int64(i%10)+1 || got.Bucket != b {
			f.Fatalf("bucket %+v: %+v, %v", b, got, err)
		}
	}
}

func balanceUnused(f *fixture) {
	for _, l := range []authz.Limit{tenAnHour(), prepaid()} {
		for range 2 {
			f.Same("the balance", f.balance(l), quota.Balance{
				Bucket: bucketFor(l), Period: quota.PeriodAt(&l, f.clock.Now()), Allowance: 10, Free: 10,
			})
			f.clock.Advance(time.Hour)
		}
	}
}

// manyParts reports, returns and leases under several limits of one holder at once: all of it or nothing.
func manyParts(f *fixture) {
	hour, day := tenAnHour(), tenAnHour()
	day.Name, day.Window = "day", authz.WindowDay
	lease := func(parts ...Ask) (quota.Answer, error) {
		f.renew("a")
		r := parts[0].Request()
		for _, p := range parts[1:] {
			r.Parts, r.Seq = append(r.Parts, p.part()), p.Seq
		}
		answers, err := f.ledger.Lease(f.Ctx(), []quota.LeaseRequest{r})
		if err != nil {
			return quota.Answer{}, err
		}
		return answers[0], answers[0].Err
	}
	got, err := lease(f.request("a", hour, 0, 4), f.request("a", day, 0, 20))
	if err != nil || len(got.Parts) != 2 || got.Parts[0].Granted != 4 || got.Parts[1].Granted != 10 {
		f.Fatalf("%+v, %v", got, err)
	}
	second := f.request("a", day, 3, 0)
	second.Back = 2
	if got, err = lease(f.request("a", hour, 1, 2), second); err != nil || got.Parts[0].Held != 5 || got.Parts[1].Held != 5 {
		f.Fatalf("%+v, %v", got, err)
	}
	if got, err = lease(f.request("a", hour, 0, 0), f.request("a", day, -1, 0)); authz.KindOf(err) != authz.KindInvalid {
		f.Fatalf("%+v, %v", got, err)
	}
	if got, err = lease(f.request("a", hour, 1, 0), f.request("a", hour, 1, 0)); authz.KindOf(err) != authz.KindInvalid {
		f.Fatalf("two parts about one limit: %+v, %v", got, err)
	}
	if h, d := f.balance(hour), f.balance(day); h.Spent != 1 || h.Outstanding["a"] != 5 || d.Spent != 3 || d.Returned != 2 || d.Outstanding["a"] != 5 {
		f.Fatalf("%+v %+v", h, d)
	}
}

// manyRequests sends requests of several holders in one call. One that is refused changes nothing for the others.
func manyRequests(f *fixture) {
	l := tenAnHour()
	var rs []quota.LeaseRequest
	for i := range 5 {
		a := f.request("a", l, 0, int64(i)+1)
		a.Bucket.Holder, a.Seq = fmt.Sprint("holder-", i), 1
		if i == 2 {
			a.Want = -1
		}
		rs = append(rs, a.Request())
	}
	f.renew("a")
	answers, err := f.ledger.Lease(f.Ctx(), rs)
	if err != nil || len(answers) != len(rs) {
		f.Fatalf("%+v, %v", answers, err)
	}
	for i, got := range answers {
		switch {
		case i == 2:
			f.Refused(got.Err, authz.KindInvalid)
		case got.Err != nil || got.Parts[0].Granted != int64(i)+1:
			f.Fatalf("request %d: %+v", i, got)
		}
	}
	if answers, err = f.ledger.Lease(f.Ctx(), nil); err != nil || len(answers) != 0 {
		f.Fatalf("no requests: %+v, %v", answers, err)
	}
}

// rates are not the ledger's.
func rates(f *fixture) {
	for _, w := range []authz.Window{authz.WindowSecond, authz.WindowMinute} {
		l := tenAnHour()
		l.Window = w
		f.Refused(f.refusal(f.request("a", l, 0, 1)), authz.KindInvalid)
		_, err := f.ledger.Credit(f.Ctx(), quota.CreditRequest{ID: "c", Bucket: bucketFor(l), Limit: l, Units: 1})
		f.Refused(err, authz.KindInvalid)
		_, err = f.ledger.Reset(f.Ctx(), quota.ResetRequest{ID: "r", Bucket: bucketFor(l), Limit: l})
		f.Refused(err, authz.KindInvalid)
	}
}
