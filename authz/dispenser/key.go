package dispenser

import (
	"github.com/tollkeeper-authz/tollkeeper/authz"
	"github.com/tollkeeper-authz/tollkeeper/authz/quota"
)

// bucketKey names a bucket in two words. A bucket is looked up several times for each request, and quota.Bucket has seven.
type bucketKey struct{ holder, count string }

// keyOf is the key of the bucket in which the holder's use of the limit is counted.
func keyOf(l *authz.Limit, h authz.Holder) bucketKey {
	key := bucketKey{h.Key, l.Count}
	if l.Per == authz.PerAccount {
		key.holder = h.Account
	}
	if key.count == "" {
		key.count = quota.BucketOf(l, h).CountKey()
	}
	return key
}

func keyOfBucket(b quota.Bucket) bucketKey { return bucketKey{b.Holder, b.CountKey()} }
