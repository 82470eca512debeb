// The application of README.md over examples/Jdbc.java, as it stands, in five threads.

import com.zaxxer.hikari.HikariDataSource;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.sql.Connection;
import java.sql.ResultSet;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicInteger;
import javax.sql.DataSource;

class App {
    // What a web application finds in its request.
    static final ThreadLocal<Tokens> current = ThreadLocal.withInitial(() -> new Tokens(""));
    static final AtomicInteger turn = new AtomicInteger();
    final DataSource primary;
    final Reads reads;

    App(DataSource primary, Reads reads) {
        this.primary = primary;
        this.reads = reads;
    }

    // Full, so that none opens a connection while another client's round trips are counted.
    static List<DataSource> pools(String[] urls) throws InterruptedException {
        List<DataSource> nodes = new ArrayList<>();
        for (String url : urls) {
            HikariDataSource pool = (HikariDataSource) Jdbc.pool(url, nodes.isEmpty());
            while (pool.getHikariPoolMXBean().getTotalConnections() < pool.getMaximumPoolSize())
                Thread.sleep(10);
            nodes.add(pool);
        }
        return nodes;
    }

    public static void main(String[] args) throws Exception {
        List<DataSource> nodes = pools(args);
        new App(new RywDataSource(nodes.get(0), current::get), new Reads(nodes))
            .serve(org.postgresql.util.DriverInfo.DRIVER_VERSION);
    }

    void serve(String version) throws Exception {
        System.out.println("ready " + version);
        ExecutorService threads = Executors.newFixedThreadPool(5);
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] request = line.split(" ");
            threads.execute(() -> System.out.println(request[0] + " " + handle(request)));
        }
        System.exit(0);
    }

    String handle(String[] request) {
        String op = request[1];
        Tokens tokens = new Tokens(request[3]);
        String answer;
        current.set(tokens);
        try {
            if (op.equals("stats"))
                answer = "ok " + reads.fallbacks + "/" + reads.onPrimary;
            else if (op.equals("get"))
                answer = "ok " + get(tokens, Integer.parseInt(request[2]));
            else
                answer = "ok " + patch(op.equals("idle") ? -1 : Integer.parseInt(request[2]),
                    op.equals("idle") ? 0 : Integer.parseInt(request[4]));
        } catch (Reads.TokenLost e) {
            answer = "lost -";
        } catch (Exception e) {
            answer = "error " + e.toString().replaceAll("\\s+", "_");
        }
        String text = tokens.toString();
        return answer + " " + (text.isEmpty() ? "-" : text);
    }

    int get(Tokens tokens, int user) throws Exception {
        return reads.read(tokens, turn.getAndIncrement(),
            "SELECT version FROM profiles WHERE id = " + user);
    }

    int patch(int user, int value) throws Exception {
        try (Connection c = primary.getConnection();
             ResultSet rs = c.createStatement().executeQuery("UPDATE profiles SET version = "
                + value + " WHERE id = " + user + " RETURNING version")) {
            return rs.next() ? rs.getInt(1) : 0;
        }
    }
}
