package quotatest

import (
	"context"
	"fmt"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// Ask is a lease request about one bucket.
type Ask struct {
	Node              quota.NodeID
	Seq               uint64
	Bucket            quota.Bucket
	Limit             authz.Limit
	Held              quota.Period
	Spent, Back, Want int64
	Last              uint64
	Known             *quota.Holding // the request restates if it is not nil
}

func (a Ask) part() quota.LeasePart {
	p := quota.LeasePart{Count: a.Bucket.CountKey(), Limit: a.Limit, Held: a.Held, Spent: a.Spent, Back: a.Back, Want: a.Want}
	if a.Known != nil {
		p.Known = *a.Known
	}
	return p
}

// Request is the request as a ledger gets it.
func (a Ask) Request() quota.LeaseRequest {
	return quota.LeaseRequest{
		Node: a.Node, Seq: a.Seq, Last: a.Last, Holder: a.Bucket.HolderID(), Parts: []quota.LeasePart{a.part()}, Restates: a.Known != nil,
	}
}

// Send sends the request.
func (a Ask) Send(ctx context.Context, l quota.Ledger) (quota.Lease, error) {
	answers, err := l.Lease(ctx, []quota.LeaseRequest{a.Request()})
	switch {
	case err != nil:
		return quota.Lease{}, err
	case len(answers) != 1 || answers[0].Err == nil && len(answers[0].Parts) != 1:
		return quota.Lease{}, fmt.Errorf("one request with one part was answered with %+v", answers)
	case answers[0].Err != nil:
		return quota.Lease{}, answers[0].Err
	}
	return answers[0].Parts[0], nil
}
