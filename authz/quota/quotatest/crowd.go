package quotatest

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
	"github.com/tollkeeper-authz/tollkeeper/authz/store/storetest"
)

var crowdTests = suite{
	{"many nodes never lease more than the allowance", manyNodes},
	{"many copies of one request count once", manyCopies},
	{"many buckets at once", manyBuckets},
}

// together runs n functions at once and waits for them.
func together(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

func manyNodes(f *fixture) {
	l := tenAnHour()
	l.Units = 500
	bucket, held := bucketFor(l), quota.PeriodAt(&l, f.clock.Now())
	var spent atomic.Int64
	together(32, func(i int) {
		node, mine := quota.NodeID(fmt.Sprint("node-", i)), int64(0)
		for seq := uint64(1); seq <= 12; seq++ {
			lease, err := f.try(Ask{
				Node: node, Seq: 2 * seq, Bucket: bucket, Limit: l, Held: held, Spent: mine, Want: int64(i%5) + 1,
			})
			if err != nil {
				f.Errorf("%s: %v", node, err)
				return
			}
			spent.Add(lease.Held)
			mine = lease.Held
			if seq%4 != 0 {
				continue
			}
			// Return one unit, as if it had not been used.
			back := min(1, mine)
			spent.Add(-back)
			if err := f.refusal(Ask{
				Node: node, Seq: 2*seq + 1, Bucket: bucket, Limit: l, Held: held, Spent: mine - back, Back: back,
			}); err != nil {
				f.Errorf("%s: %v", node, err)
				return
			}
			mine = 0
		}
		if err := f.refusal(Ask{Node: node, Seq: 100, Bucket: bucket, Limit: l, Held: held, Spent: mine}); err != nil {
			f.Errorf("%s: %v", node, err)
		}
	})
	got := f.balance(l)
	if spent.Load() > l.Units || got.Spent != spent.Load() || got.Overage != 0 || got.Free != l.Units-got.Spent {
		f.Fatalf("%d of %d were spent: %+v", spent.Load(), l.Units, got)
	}
	if rest := f.lease("last", l, 0, l.Units); rest.Granted != got.Free || rest.Counted != l.Units {
		f.Fatalf("the rest of %d: %+v", got.Free, rest)
	}
}

func manyCopies(f *fixture) {
	l := prepaid()
	lease, settle := f.request("a", l, 0, 4), f.settlement("s", l, 3, 1)
	credit := quota.CreditRequest{ID: "c", Bucket: bucketFor(l), Limit: l, Units: 7}
	answers := make([]string, 24)
	together(len(answers), func(i int) {
		var (
			got any
			err error
		)
		switch i % 3 {
		case 0:
			var answer quota.Lease
			answer, err = f.try(lease)
			got = answer.Granted
		case 1:
			got, err = f.ledger.Settle(f.Ctx(), settle)
		case 2:
			_, err = f.ledger.Credit(f.Ctx(), credit)
		}
		if err != nil {
			f.Error(err)
		}
		answers[i] = storetest.Text(got)
	})
	for i := range answers {
		if answers[i] != answers[i%3] {
			f.Errorf("one request, two answers: %s and %s", answers[i], answers[i%3])
		}
	}
	got := f.balance(l)
	if got.Granted != 4 || got.Allowance != 17 || got.Outstanding["a"] != 4 {
		f.Fatalf("balance: %+v", got)
	}
}

func manyBuckets(f *fixture) {
	l := tenAnHour()
	together(24, func(i int) {
		b := quota.Bucket{Per: l.Per, Holder: fmt.Sprint("holder-", i), Limit: l.Name}
		for seq := uint64(1); seq <= 4; seq++ {
			lease, err := f.try(Ask{Node: "a", Seq: seq, Bucket: b, Limit: l, Want: 2})
			if err != nil || lease.Held != int64(seq)*2 {
				f.Errorf("bucket %d, request %d: %+v, %v", i, seq, lease, err)
				return
			}
			if got, err := f.ledger.Balance(f.Ctx(), b, l); err != nil || got.Granted != int64(seq)*2 {
				f.Errorf("bucket %d: an acknowledged lease is not seen: %+v, %v", i, got, err)
			}
		}
	})
}
