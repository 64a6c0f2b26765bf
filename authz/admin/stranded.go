package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// stranded lists the prepaid units that nodes left behind when they died, those of the limit and of the account if they are not "".
// Units that come back by themselves are left out. It reads the record of every holder.
func (s *Service) stranded(ctx context.Context, account, limit string) ([]Stranded, error) {
	if err := s.checkPrepaid(limit); err != nil {
		return nil, err
	}
	all := []quota.Stranding{}
	err := s.Ledger.Stranded(ctx, func(one quota.Stranding) bool {
		if (limit == "" || limit == one.Bucket.Limit) && !s.refundsItself(&one.Bucket) {
			all = append(all, one)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	out := []Stranded{}
	for i := range all {
		owner, err := s.ownerOf(ctx, &all[i].Bucket)
		if err != nil {
			return nil, err
		}
		if account == "" || account == owner {
			b := &all[i].Bucket
			out = append(out, Stranded{owner, string(b.Per), b.Holder, b.Limit, b.Unit, all[i].Node, all[i].Units, all[i].Reported})
		}
	}
	slices.SortFunc(out, func(a, b Stranded) int {
		return cmp.Or(cmp.Compare(a.Account, b.Account), cmp.Compare(a.Holder, b.Holder), cmp.Compare(a.Limit, b.Limit), cmp.Compare(a.Node, b.Node))
	})
	return out, nil
}

// checkPrepaid refuses the name of a limit that no plan has, or that is not prepaid. "" is any limit.
func (s *Service) checkPrepaid(limit string) error {
	if limit == "" {
		return nil
	}
	var other *authz.Limit
	for _, limits := range s.Plans() {
		for i := range limits {
			switch l := &limits[i]; {
			case l.Name != limit:
			case l.Window == authz.WindowNone:
				return nil
			default:
				other = l
			}
		}
	}
	if other != nil {
		return authz.Errorf(authz.KindInvalid, "limit %q counts per %s and starts over by itself: only units of prepaid limits stay stranded", limit, other.Window)
	}
	return authz.Errorf(authz.KindNotFound, "no plan has a limit %q", limit)
}

// refundsItself reports whether the plans give back what a node held of the bucket when it died.
func (s *Service) refundsItself(b *quota.Bucket) bool {
	refunds := false
	for _, limits := range s.Plans() {
		for i := range limits {
			if l := &limits[i]; l.Window == authz.WindowNone && l.Name == b.Limit && l.Per == b.Per && l.Unit == b.Unit {
				if !l.RefundOnCrash {
					return false
				}
				refunds = true
			}
		}
	}
	return refunds
}

// ownerOf is the account whose units are in the bucket, "" if its key is gone.
func (s *Service) ownerOf(ctx context.Context, b *quota.Bucket) (string, error) {
	if b.Per == authz.PerAccount {
		return b.Holder, nil
	}
	if account, ok := authz.BearerAccount(b.Holder); ok {
		return account, nil
	}
	k, err := s.Keys.Key(ctx, b.Holder)
	switch {
	case authz.KindOf(err) == authz.KindNotFound:
		return "", nil
	case err != nil:
		return "", err
	}
	return k.Account, nil
}

// release decides on what one node held of one bucket when it died. Doing it twice is doing it once: the id is made of what was
// listed.
func (s *Service) release(ctx context.Context, in QuotaRelease) (QuotaRelease, error) {
	l := authz.Limit{Name: in.Limit, Unit: in.Unit, Per: authz.Per(in.Per), Window: authz.WindowNone} // its units do not matter here
	b := quota.BucketOf(&l, authz.Holder{Key: in.Holder, Account: in.Holder})
	if in.Holder == "" || in.Limit == "" || in.Node == "" || b.Per != authz.PerAccount && b.Per != authz.PerKey {
		return QuotaRelease{}, authz.Errorf(authz.KindInvalid, "give what is stranded as it is listed: per, holder, limit, unit, node, units and reported")
	}
	if in.Back > in.Units {
		return QuotaRelease{}, authz.Errorf(authz.KindInvalid, "%d units cannot come back of %d that are stranded", in.Back, in.Units)
	}
	what := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %d", b.Key(), in.Node, in.Units, in.Reported))
	_, err := s.Ledger.Release(ctx, quota.ReleaseRequest{
		ID: "release-" + hex.EncodeToString(what[:16]), Bucket: b, Limit: l, Node: in.Node, Units: in.Back,
	})
	return in, err
}
