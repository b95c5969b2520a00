package committed

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// FetchFromLeader sends one fetch request to the leader of some partitions of a topic, for records from the given
// offsets on, and returns its answer for each partition. The request says how many bytes are sent in all, how long the
// broker may wait for them, and the isolation level.
func FetchFromLeader(
	ctx context.Context, client *kgo.Client, leader int32, topic kadm.TopicDetail,
	request *kmsg.FetchRequest, offsets map[int32]int64, partitionBytes int32,
) ([]kmsg.FetchResponseTopicPartition, error) {
	t := kmsg.NewFetchRequestTopic()
	t.Topic, t.TopicID = topic.Topic, topic.ID // from version 13 on the broker reads the id only
	for partition, offset := range offsets {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = partition, offset, partitionBytes
		t.Partitions = append(t.Partitions, p)
	}
	request.Topics = []kmsg.FetchRequestTopic{t}
	response, err := client.Broker(int(leader)).RetriableRequest(ctx, request)
	if err != nil {
		return nil, err
	}
	fetched, ok := response.(*kmsg.FetchResponse)
	if !ok {
		return nil, fmt.Errorf("unexpected answer %T to a fetch request", response)
	}
	var answers []kmsg.FetchResponseTopicPartition
	for _, topic := range fetched.Topics {
		answers = append(answers, topic.Partitions...)
	}
	return answers, nil
}
