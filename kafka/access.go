package kafka

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// An Access lists the operations on one topic or one group that ACLs must allow a process, by Kafka's names.
type Access struct {
	Topic, Group string // one of the two
	Operations   []string
}

// A Denied is an operation that the cluster's ACLs do not allow this user.
type Denied struct {
	Resource  string // topic or group, and its name
	Action    string // what was not allowed, in words
	Operation string // what to grant for it, by Kafka's name
}

func (d *Denied) Error() string {
	return fmt.Sprintf("%s: this user may not %s: grant the ACL operation %s", d.Resource, d.Action, d.Operation)
}

// CheckAccess returns an error that names every operation which the cluster's ACLs do not allow this user. A client
// that is refused later, for example when it joins its group, would retry forever without an error. Operations that the
// brokers do not report about count as allowed.
func CheckAccess(ctx context.Context, c Config, want []Access) error {
	// From version 6 on the answer about a group that does not exist yet is an error without the allowed operations.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(kmsg.DescribeGroups.Int16(), 5)
	a, err := c.admin(kgo.MaxVersions(versions))
	if err != nil {
		return err
	}
	defer a.Close()
	allowed, err := a.allowed(ctx, want)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range want {
		resource := w.resource()
		operations, known := allowed[resource]
		if !known {
			continue
		}
		var missing []string
		for _, name := range w.Operations {
			operation, err := kmsg.ParseACLOperation(name)
			if err != nil {
				return fmt.Errorf("%s: ACL operation %q: %w", resource, name, err)
			}
			if operations&(1<<operation) == 0 {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			list := strings.Join(missing, ", ")
			errs = append(errs, &Denied{resource, list, list})
		}
	}
	return errors.Join(errs...)
}

func (w Access) resource() string {
	if w.Group != "" {
		return "group " + w.Group
	}
	return "topic " + w.Topic
}

// allowed returns the allowed operations as a bit set, by resource. Resources that the brokers do not report about are
// missing.
func (a *admin) allowed(ctx context.Context, want []Access) (map[string]int32, error) {
	allowed := map[string]int32{}
	note := func(resource string, operations int32) {
		// One who may describe a resource has at least one bit: 0, too, means that nothing is reported.
		if operations != math.MinInt32 && operations != 0 {
			allowed[resource] = operations
		}
	}
	topics, groups := kmsg.NewPtrMetadataRequest(), kmsg.NewPtrDescribeGroupsRequest()
	topics.AllowAutoTopicCreation = false
	topics.IncludeTopicAuthorizedOperations, groups.IncludeAuthorizedOperations = true, true
	topics.Topics = []kmsg.MetadataRequestTopic{} // none, not nil: nil asks for all
	for _, w := range want {
		if w.Group != "" {
			groups.Groups = append(groups.Groups, w.Group)
			continue
		}
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = new(w.Topic)
		topics.Topics = append(topics.Topics, t)
	}
	metadata, err := topics.RequestWith(ctx, a.client)
	if err != nil {
		return nil, a.fail("look up the allowed operations", err)
	}
	for _, t := range metadata.Topics {
		switch {
		case t.Topic == nil:
		case t.ErrorCode == kerr.TopicAuthorizationFailed.Code:
			allowed["topic "+*t.Topic] = 0
		default:
			note("topic "+*t.Topic, t.AuthorizedOperations)
		}
	}
	if len(groups.Groups) == 0 {
		return allowed, nil
	}
	// one for each coordinator, and for each group without one
	for _, shard := range a.client.RequestSharded(ctx, groups) {
		switch response := shard.Resp.(type) {
		case *kmsg.DescribeGroupsResponse:
			for _, g := range response.Groups {
				if !refused(kerr.ErrorForCode(g.ErrorCode), allowed, g.Group) {
					note("group "+g.Group, g.AuthorizedOperations)
				}
			}
		default:
			request, ok := shard.Req.(*kmsg.DescribeGroupsRequest)
			if !ok || !refused(shard.Err, allowed, request.Groups...) {
				return nil, a.fail("look up the allowed operations", shard.Err)
			}
		}
	}
	return allowed, nil
}

// refused notes groups that the user may not even describe, if err says so.
func refused(err error, allowed map[string]int32, groups ...string) bool {
	if !errors.Is(err, kerr.GroupAuthorizationFailed) {
		return false
	}
	for _, group := range groups {
		allowed["group "+group] = 0
	}
	return true
}
