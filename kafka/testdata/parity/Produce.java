import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Sends a record for each key on standard input, base64 a line, with Kafka's own producer and nothing set about partitions.
 * Prints for each key the partitions of topics with 1, 7, 12, 32 and 1009, as its partitioner gives them.
 */
public class Produce {
    public static void main(String[] args) throws Exception {
        Properties config = new Properties();
        config.put("bootstrap.servers", args[0]);
        config.put("key.serializer", ByteArraySerializer.class);
        config.put("value.serializer", ByteArraySerializer.class);
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        StringBuilder out = new StringBuilder();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(config)) {
            BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
            for (String line; (line = in.readLine()) != null;) {
                byte[] key = Base64.getDecoder().decode(line);
                sent.add(producer.send(new ProducerRecord<>(args[1], key, new byte[0])));
                for (int n : new int[] {1, 7, 12, 32, 1009}) {
                    out.append(BuiltInPartitioner.partitionForKey(key, n)).append(' ');
                }
                out.append('\n');
            }
        }
        for (Future<RecordMetadata> one : sent) {
            one.get(); // a record that failed says so here
        }
        System.out.print(out);
    }
}
