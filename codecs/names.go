package codecs

import "slices"

// A slot is the place in a draft for the value of one field, or of one spelling of it.
type slot uint8

// Each spelling of the event, its id and its scope has a slot of its own, because all of them must agree.
const (
	none slot = iota
	atEvent
	atEventTypeCamel
	atEventType
	atEventID
	atEventIDCamel
	atWorkspace
	atWorkspaceCamel
	atProfile
	atProfileCamel
	atProfileType
	atProfileTypeCamel
	atShare
	atShareCamel
	atOrg
	atOrgCamel
	atHashAlgorithm
	atCanonical // written by the ingress: see Event.sent_event
	atObject    // from here on a slot has the value of the first spelling, in the order of fields, that has one
	atName
	atPath
	atParent
	atMime
	atHash
	atActor
	atMember
	lastText = atMember
)

const (
	atSize = lastText + 1 + iota
	atOccurred
	atReceived
)

// optional are the canonical names of the optional fields, by slot from atName on.
var optional = [...]string{"name", "path", "parent_id", "mime", "hash", "actor_id", "member_id", "size", "created"}

// OptionalFields returns the names that Event.unreadable may contain, sorted.
func OptionalFields() []string { return slices.Sorted(slices.Values(optional[:])) }

// canonicalName is the member in which the ingress writes the canonical event for a sender's own name: see
// Event.sent_event.
const canonicalName = "canonical_event"

// fields are the slots with the names that senders use for them, case-sensitive, in order of precedence.
var fields = []struct {
	at    slot
	names []string
}{
	{atEvent, []string{"event"}},
	{atEventTypeCamel, []string{"eventType"}},
	{atEventType, []string{"event_type"}},
	{atEventID, []string{"event_id"}},
	{atEventIDCamel, []string{"eventId"}},
	{atWorkspace, []string{"workspace_id"}},
	{atWorkspaceCamel, []string{"workspaceId"}},
	{atProfile, []string{"profile_id"}},
	{atProfileCamel, []string{"profileId"}},
	{atProfileType, []string{"profile_type"}},
	{atProfileTypeCamel, []string{"profileType"}},
	{atShare, []string{"share_id"}},
	{atShareCamel, []string{"shareId"}},
	{atOrg, []string{"org_id"}},
	{atOrgCamel, []string{"orgId"}},
	{atHashAlgorithm, []string{"hash_algo"}},
	{atCanonical, []string{canonicalName}},
	{atObject, []string{"object_id", "objectId", "fileId", "file_id"}},
	{atName, []string{"name", "fileName", "file_name"}},
	{atPath, []string{"path", "filePath", "file_path"}},
	{atParent, []string{"parent_id", "folder_id", "parentId", "folderId", "parent"}},
	{atMime, []string{"mime", "mimeType", "mime_type", "mimetype", "content_type"}},
	{atHash, []string{"hash", "checksum", "sha256"}},
	{atActor, []string{"calling_user_id", "callingUserId", "actor_id", "actorId", "user_id", "userId"}},
	{atMember, []string{"user_id", "member_id", "userId", "memberId"}},
	{atSize, []string{"size", "fileSize", "file_size"}},
	{atOccurred, []string{"created", "timestamp", "occurred_at", "createdAt"}},
	{atReceived, []string{"received_at"}},
}

// A spelling is a name, its slots, and its rank among the names of each slot. A name may have two slots because a user
// may be both the actor and the member.
type spelling struct {
	name string
	at   [2]slot
	rank [2]uint8
}

// spellings is a hash table of fields, with linear probing. Each name of an event is looked up in it.
var spellings = func() (table [256]spelling) {
	for _, f := range fields {
		for rank, name := range f.names {
			h := hashName([]byte(name))
			for table[h].name != "" && table[h].name != name {
				h++ // a uint8: it wraps
			}
			e := &table[h]
			e.name = name
			i := 0
			if e.at[0] != none {
				i = 1
			}
			e.at[i], e.rank[i] = f.at, uint8(rank)
		}
	}
	return table
}()

// hashName differs for most names of one object.
func hashName(name []byte) uint8 {
	n := len(name)
	if n == 0 {
		return 0
	}
	return uint8(n*31) + name[0]*7 + name[n/2]*13 + name[n-1]*3
}

// lookup returns the spelling of a name, nil if the name is not read.
func lookup(name []byte, hash uint8) *spelling {
	if len(name) == 0 {
		return nil
	}
	for h := hash; ; h++ {
		switch e := &spellings[h]; e.name {
		case string(name):
			return e
		case "":
			return nil
		}
	}
}
