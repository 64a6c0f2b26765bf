package check

import (
	"context"

	"github.com/tollkeeper-authz/tollkeeper/authz"
)

// CheckUnpooled is Check without the pool of evaluations.
func (c *Checker) CheckUnpooled(ctx context.Context, r *authz.Request) authz.Decision {
	return c.evaluate(ctx, new(evaluation), r)
}
